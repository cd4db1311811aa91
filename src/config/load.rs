//! Reads a file into a [`Config`]: parse, resolve references, hold it against the schema, read section by section,
//! look for contradictions. Each step reports all it finds and leaves a tree on which the next one can go on.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_json::Value;
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

pub use super::faults::{Fault, Faults, Warning};
use super::{
    Config, UpstreamConfig, contradictions,
    difference::Written,
    document::Document,
    files, keys,
    paths::{self, strs},
    references::{self, Secrets, Surroundings},
    schema,
};

impl Config {
    /// The configuration in a file. References and `body_file` are relative to its folder.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        let file = path.display().to_string();
        let whole = |message: &str| Faults(vec![Fault::new(&file, message)]);
        let bytes = files::read(path, LARGEST_CONFIG).map_err(|error| whole(&error))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            let message = "is not UTF-8 text: save it as UTF-8";
            Faults(vec![Fault { line: line + 1, column: 1, ..Fault::new(&file, message) }])
        })?;
        let mut config = Self::parse(&text, &file)?;
        config.place_files(&folder_of(&file));
        Ok(config)
    }

    /// The configuration in a text; `file` is the name that faults bear.
    pub fn parse(text: &str, file: &str) -> Result<Self, Faults> {
        let folder = folder_of(file);
        Self::parse_within(text, file, &Surroundings { env: &environment, folder: &folder })
    }

    /// What `standin run --listen A --upstream URL` means without a file.
    pub fn for_one_upstream(listen: SocketAddr, upstream: &str) -> Result<Self, Faults> {
        let mut config = Self::default();
        config.listen.address = listen;
        let app = UpstreamConfig { endpoints: vec![upstream.to_owned()], ..Default::default() };
        config.upstream.insert("app".to_owned(), app);
        config.verify().map(|()| config)
    }

    /// Whether a configuration that was changed after loading (by arguments) still holds together.
    pub fn verify(&self) -> Result<(), Faults> {
        let mut document = Document::parse("", "command line");
        contradictions::find(self, &mut document, Path::new(""));
        document.into_faults()
    }

    fn parse_within(
        text: &str,
        file: &str,
        surroundings: &Surroundings<'_>,
    ) -> Result<Self, Faults> {
        let schema = schema::json_schema();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut document = Document::parse(text, file);
        references::resolve(&mut document, surroundings);
        keys::check(&mut document, &schema);
        let hopeless = document.is_hopeless();
        let config = (!hopeless).then(|| read_all(&mut document, &schema)).flatten();
        if let Some(config) = &config
            && !document.broken
        {
            contradictions::find(config, &mut document, surroundings.folder);
        }
        let secrets = Secrets::new(&document.references);
        let written = Written::of(&document, &schema);
        document.into_faults()?;
        let config = config.expect("a section that cannot be read has a fault");
        Ok(Self { secrets, written, ..config })
    }

    fn place_files(&mut self, folder: &Path) {
        if let Some(tls) = &mut self.listen.tls {
            tls.place(folder);
        }
        for tls in self.upstream.values_mut().filter_map(|upstream| upstream.tls.as_mut()) {
            tls.place(folder);
        }
        let answers = self.route.values_mut().filter_map(|route| route.stand_in.as_mut());
        for file in answers.filter_map(|stand_in| stand_in.answer.body_file.as_mut()) {
            *file = folder.join(&*file);
        }
        for source in self.egress.values_mut().filter_map(|pool| pool.source.as_mut()) {
            if let Some(path) = source.strip_prefix("file:") {
                *source = format!("file:{}", folder.join(path).display());
            }
        }
    }
}

/// Reads each upstream, route and pool by itself, so that a fault in one does not hide those of the others.
fn read_all(document: &mut Document<'_>, schema: &Value) -> Option<Config> {
    let upstreams = read_named(document, schema, "upstream");
    let routes = read_named(document, schema, "route");
    let egress = read_named(document, schema, "egress");
    let mut config: Config = read(document, schema, &[], |tree| {
        let mut top = tree.clone();
        top.remove("upstream");
        top.remove("route");
        top.remove("egress");
        top
    })?;
    config.upstream = upstreams?;
    config.route = routes?;
    config.egress = egress?;
    Some(config)
}

fn read_named<T: DeserializeOwned>(
    document: &mut Document<'_>,
    schema: &Value,
    kind: &str,
) -> Option<std::collections::BTreeMap<String, T>> {
    let named = document.tree.get(kind).and_then(|value| value.get_ref().as_table());
    let names: Vec<String> =
        named.into_iter().flatten().map(|(name, _)| name.get_ref().to_string()).collect();
    let read_one = |name: String| {
        let value = read(document, schema, &[kind, &name], |tree| table_at(tree, kind, &name));
        value.map(|value| (name, value))
    };
    // All are read, even after one that cannot be.
    names.into_iter().map(read_one).collect::<Vec<_>>().into_iter().collect()
}

fn table_at<'t>(tree: &DeTable<'t>, kind: &str, name: &str) -> DeTable<'t> {
    let table = tree.get(kind).and_then(|value| value.get_ref().get(name));
    table.and_then(|value| value.get_ref().as_table()).cloned().unwrap_or_default()
}

/// Deserialises one part; each fault is reported, its value replaced, and the part read again.
fn read<'t, T: DeserializeOwned>(
    document: &mut Document<'t>,
    schema: &Value,
    section: &[&str],
    part: impl Fn(&DeTable<'t>) -> DeTable<'t>,
) -> Option<T> {
    for _ in 0..MOST_TURNS {
        let table = part(&document.tree);
        let value = Spanned::new(0..0, DeValue::Table(table.clone()));
        let error = match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let mut path: Vec<String> = section.iter().map(|step| (*step).to_owned()).collect();
        let found = error.span().is_some_and(|span| paths::find(&table, &span, &mut path));
        if !found || !document.sound(&strs(&path)) && !path.last()?.starts_with('[') {
            // The schema and the types disagree: our own bug, but no reason to fall over.
            document.fault_at(document.span_of(section), section, error.message());
            return None;
        }
        report(document, schema, &path, &error);
    }
    None
}

fn report(document: &mut Document<'_>, schema: &Value, path: &[String], error: &toml::de::Error) {
    let (last, parents) = path.split_last().expect("a value has a key");
    let wanted = schema::at(schema, path).unwrap_or(&Value::Null);
    let message = match wanted["format"].as_str() {
        Some("standin-address" | "standin-network") => {
            let text = document.text_at(path).unwrap_or_default();
            format!("`{text}` is not {}", schema::wanted(wanted).replace(" in quotes", ""))
        }
        _ => error.message().to_owned(),
    };
    let required =
        schema::at(schema, parents).is_some_and(|table| schema::is_required(table, last));
    // In the tree an item may have moved up since; in the file it has not.
    let written = error.span().and_then(|span| document.path_at(&span));
    let shown = written.as_deref().unwrap_or(path);
    let span = error.span().filter(|_| last.starts_with('['));
    let span = span.or_else(|| document.span_of(&strs(shown)));
    document.fault_at(span, &strs(shown), &message);
    document.replace(path, required.then(|| keys::filling(wanted)));
}

#[expect(
    clippy::disallowed_methods,
    reason = "references of the configuration ask the environment"
)]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn folder_of(file: &str) -> PathBuf {
    Path::new(file).parent().unwrap_or(Path::new("")).to_owned()
}

/// A part with more faults than this is not read any further.
const MOST_TURNS: usize = 1000;
const LARGEST_CONFIG: u64 = 4 << 20;
