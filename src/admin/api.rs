//! `/api/v1`: the same data and the same actions as the page, for programs; its OpenAPI document.

mod egress;
mod entries;
mod held;
mod records;
mod replay;
mod system;

use std::sync::Arc;

use axum::{Json, Router, routing};
use utoipa::OpenApi;

use super::{Admin, problem::Problem};

/// One list for the router and the test that compares it with the document.
macro_rules! api {
    ($($method:ident $path:literal => $handler:path),+ $(,)?) => {
        /// Every route of the API, with its method.
        #[cfg(test)]
        const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),+];

        pub(super) fn routes() -> Router<Arc<Admin>> {
            Router::new()$(.route($path, routing::$method($handler)))+
        }
    };
}

api! {
    get "/openapi.json" => document,
    get "/status" => system::status,
    get "/volumes" => system::volumes,
    get "/audit" => system::audit,
    get "/mode" => system::mode,
    post "/mode" => system::set_mode,
    post "/reload" => system::reload,
    get "/entries" => entries::list,
    get "/entries/{id}" => entries::show,
    get "/entries/{id}/history" => entries::history,
    get "/entries/{id}/request" => entries::request,
    get "/entries/{id}/answer" => entries::answer,
    post "/entries/{id}/replay" => entries::replay,
    post "/entries/{id}/hold" => entries::hold,
    post "/entries/{id}/release" => entries::release,
    post "/entries/{id}/write-off" => entries::write_off,
    post "/entries/{id}/follow-up" => entries::follow_up,
    post "/held/{held}/release" => held::release,
    get "/replay/runs" => replay::runs,
    post "/replay/runs" => replay::start,
    get "/replay/impact" => replay::impact,
    post "/replay/runs/{id}/stop" => replay::stop,
    get "/replay/events" => replay::events,
    get "/records" => records::list,
    get "/records/{number}" => records::show,
    get "/egress" => egress::list,
    get "/egress/{pool}" => egress::show,
    post "/egress/{pool}/add" => egress::add,
    post "/egress/{pool}/{proxy}/drain" => egress::drain,
    post "/egress/{pool}/{proxy}/retire" => egress::retire,
    post "/egress/{pool}/{proxy}/activate" => egress::activate,
    post "/egress/{pool}/{proxy}/cool" => egress::cool,
}

/// The OpenAPI 3.1 document of `/api/v1`.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "standin admin API",
        description = "What standin did and does. Changes are made by POST, each with a reason that goes into the audit \
                       log. With [admin] token set, send it as a bearer token, or as the password of Basic \
                       authentication; then the user name is who did it. Errors are application/problem+json.",
        license(name = "MIT OR Apache-2.0")
    ),
    servers((url = "/api/v1")),
    paths(
        document,
        system::status,
        system::volumes,
        system::audit,
        system::mode,
        system::set_mode,
        system::reload,
        entries::list,
        entries::show,
        entries::history,
        entries::request,
        entries::answer,
        entries::replay,
        entries::hold,
        entries::release,
        entries::write_off,
        entries::follow_up,
        held::release,
        replay::runs,
        replay::start,
        replay::impact,
        replay::stop,
        replay::events,
        records::list,
        records::show,
        egress::list,
        egress::show,
        egress::add,
        egress::drain,
        egress::retire,
        egress::activate,
        egress::cool,
    ),
    components(schemas(Problem)),
    modifiers(&Credentials),
    security((), ("bearer" = []), ("basic" = []))
)]
struct Document;

/// The document of the API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "system", responses((status = 200, description = "OpenAPI 3.1")))]
async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(openapi())
}

struct Credentials;

impl utoipa::Modify for Credentials {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
        let components = document.components.get_or_insert_default();
        for (name, scheme) in [("bearer", HttpAuthScheme::Bearer), ("basic", HttpAuthScheme::Basic)]
        {
            components.add_security_scheme(name, SecurityScheme::Http(Http::new(scheme)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let document = serde_json::to_value(openapi()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let documented: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                methods
                    .as_object()
                    .unwrap()
                    .keys()
                    .map(move |method| (method.clone(), path.clone()))
            })
            .collect();
        let routed: BTreeSet<(String, String)> =
            ROUTES.iter().map(|(method, path)| ((*method).into(), (*path).into())).collect();
        assert_eq!(documented, routed);
    }

    #[test]
    fn every_reference_in_the_document_leads_somewhere() {
        fn references(value: &serde_json::Value, found: &mut Vec<String>) {
            match value {
                serde_json::Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(|r| r.as_str()).map(str::to_owned));
                    fields.values().for_each(|field| references(field, found));
                }
                serde_json::Value::Array(items) => {
                    items.iter().for_each(|item| references(item, found));
                }
                _ => {}
            }
        }
        let document = serde_json::to_value(openapi()).unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            let place = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(place).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_change_needs_a_reason() {
        let document = serde_json::to_value(openapi()).unwrap();
        for (method, path) in ROUTES.iter().filter(|(method, _)| *method == "post") {
            let body =
                &document["paths"][path][method]["requestBody"]["content"]["application/json"];
            let name = body["schema"]["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
            let required = document["components"]["schemas"][name]["required"].as_array().unwrap();
            assert!(required.contains(&"reason".into()), "{path}");
        }
    }
}
