//! When a certificate ends: `notAfter` of RFC 5280 4.1.2.5, read out of its DER. rustls checks certificates and does not
//! show that field; nothing is judged here.

use jiff::{civil::DateTime, tz::TimeZone};

use crate::time::UnixMillis;

/// The end of the certificate's time. None where it is no certificate.
pub(super) fn not_after(certificate: &[u8]) -> Option<UnixMillis> {
    let (whole, _) = element(certificate, SEQUENCE)?;
    let (mut signed, _) = element(whole, SEQUENCE)?;
    if signed.first() == Some(&VERSION) {
        signed = element(signed, VERSION)?.1;
    }
    let after_serial = element(signed, INTEGER)?.1;
    let after_algorithm = element(after_serial, SEQUENCE)?.1;
    let after_issuer = element(after_algorithm, SEQUENCE)?.1;
    let (validity, _) = element(after_issuer, SEQUENCE)?;
    let (_, _, end) = next(validity)?;
    let (tag, text, _) = next(end)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// `YYMMDDHHMMSSZ` up to 2049, `YYYYMMDDHHMMSSZ` from then on.
fn time(tag: u8, text: &str) -> Option<UnixMillis> {
    let whole = match tag {
        UTC_TIME if text.len() == 13 => {
            let century = if text.get(..2)?.parse::<u8>().ok()? < 50 { "20" } else { "19" };
            format!("{century}{text}")
        }
        GENERALIZED_TIME if text.len() == 15 => text.to_owned(),
        _ => return None,
    };
    let digits = whole.strip_suffix('Z').filter(|rest| rest.bytes().all(|b| b.is_ascii_digit()))?;
    let number = |at: std::ops::Range<usize>| digits[at].parse::<i8>().ok();
    let year = digits[..4].parse::<i16>().ok()?;
    let at = DateTime::new(
        year,
        number(4..6)?,
        number(6..8)?,
        number(8..10)?,
        number(10..12)?,
        number(12..14)?,
        0,
    );
    let at = at.ok()?.to_zoned(TimeZone::UTC).ok()?;
    Some(UnixMillis(at.timestamp().as_millisecond()))
}

/// Content and rest of the first element, which must have this tag.
fn element(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = next(bytes)?;
    (tag == wanted).then_some((content, rest))
}

/// Tag, content and rest of the first element.
fn next(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, bytes) = bytes.split_first()?;
    let (&first, bytes) = bytes.split_first()?;
    let (length, bytes) = match first {
        0..=0x7f => (usize::from(first), bytes),
        // Longer than two bytes say no certificate is.
        0x81..=0x82 => {
            let (length, bytes) = bytes.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), bytes)
        }
        _ => return None,
    };
    let (content, rest) = bytes.split_at_checked(length)?;
    Some((tag, content, rest))
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT Version`
const VERSION: u8 = 0xa0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn certificate(year: i32) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["shop".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 3, 4);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_read() {
        for (year, wanted) in
            [(2031, "2031-03-04T00:00:00.000Z"), (2051, "2051-03-04T00:00:00.000Z")]
        {
            assert_eq!(not_after(&certificate(year)).unwrap().to_string(), wanted);
        }
    }

    #[test]
    fn what_is_cut_has_no_end() {
        let whole = certificate(2031);
        assert!((0..whole.len()).all(|length| not_after(&whole[..length]).is_none()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..64), at in any::<prop::sample::Index>()
        ) {
            not_after(&bytes);
            let mut broken = certificate(2031);
            let at = at.index(broken.len());
            for (offset, byte) in bytes.iter().enumerate().take(broken.len() - at) {
                broken[at + offset] = *byte;
            }
            not_after(&broken);
        }
    }
}
