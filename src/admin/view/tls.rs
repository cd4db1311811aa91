//! The certificates of both sides: until when they are good, and whether what is in their files is what is used.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{At, Sentence, Severity};
use crate::{time::UnixMillis, tls::TlsStatus};

/// One section of TLS.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TlsView {
    /// `listen.tls` or `upstream.NAME.tls`.
    pub section: String,
    pub certificates: Vec<CertificateView>,
    /// When the files were read that are used now.
    pub loaded_at: At,
    /// Why what is in the files now is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Anybody may pose as the app.
    pub insecure: bool,
}

/// One file with certificates.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CertificateView {
    pub file: String,
    /// The first end among those in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<At>,
}

impl TlsView {
    pub(super) fn of(status: TlsStatus, insecure: bool) -> Self {
        let certificates = status.certificates.into_iter().map(|one| CertificateView {
            file: one.file.display().to_string(),
            not_after: one.not_after.map(At),
        });
        Self {
            section: status.section,
            certificates: certificates.collect(),
            loaded_at: At(status.loaded_at),
            fault: status.fault,
            insecure,
        }
    }

    /// What an operator must know of it.
    pub(super) fn sentences(&self, now: UnixMillis) -> Vec<Sentence> {
        let mut all = Vec::new();
        let mut say = |severity, text| all.push(Sentence { severity, route: None, text });
        let section = &self.section;
        if self.insecure {
            let text =
                format!("{section}: no certificate is looked at, anybody can pose as the app.");
            say(Severity::Alarm, text);
        }
        if let Some(fault) = &self.fault {
            let text = format!("{section}: the changed files are not used ({fault}).");
            say(Severity::Warn, text);
        }
        for CertificateView { file, not_after } in &self.certificates {
            let Some(end) = not_after else { continue };
            if end.0 <= now {
                say(
                    Severity::Alarm,
                    format!("{section}: {file} is over since {}.", end.short(now)),
                );
            } else if end.0 <= now.plus(SOON) {
                say(
                    Severity::Warn,
                    format!("{section}: {file} is good until {} only.", end.short(now)),
                );
            }
        }
        all
    }
}

/// The page warns as the alert does.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_soon_or_is_not_used_is_said() {
        let now = UnixMillis(1_795_356_125_250);
        let at = |days: i64| Some(At(UnixMillis(now.0 + days * 24 * 3600 * 1000)));
        let certificate = |not_after| CertificateView { file: "shop.pem".into(), not_after };
        let said = |certificates: Vec<CertificateView>, fault: Option<&str>, insecure| {
            let fault = fault.map(str::to_owned);
            let section = "listen.tls".to_owned();
            let view = TlsView { section, certificates, loaded_at: At(now), fault, insecure };
            view.sentences(now).into_iter().map(|s| (s.severity, s.text)).collect::<Vec<_>>()
        };
        assert_eq!(said(vec![certificate(at(8)), certificate(None)], None, false), []);
        let soon = said(vec![certificate(at(6))], Some("no PEM"), true);
        let severities: Vec<_> = soon.iter().map(|(severity, _)| *severity).collect();
        assert_eq!(severities, [Severity::Alarm, Severity::Warn, Severity::Warn], "{soon:?}");
        assert!(soon[1].1.contains("no PEM") && soon[2].1.contains("good until 2026-11-28"));
        assert_eq!(said(vec![certificate(at(-1))], None, false)[0].0, Severity::Alarm);
    }
}
