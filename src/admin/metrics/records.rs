//! Records of failed exchanges in the metrics: how many there are, and how many are not.

use std::fmt::Error;

use super::{family::Out, float};
use crate::record::Records;

pub(super) fn encode(records: &Records, out: &mut Out<'_>) -> Result<(), Error> {
    let mut family = out.gauge("standin_records", "Failed exchanges that are kept for support")?;
    family.gauge(&[], float(records.all().len() as u64))?;
    let mut family = out.counter(
        "standin_records_dropped",
        "Failed exchanges that were not kept, or made room for newer ones, by why",
    )?;
    for (why, count) in records.dropped() {
        family.counter(&[("why", why)], count)?;
    }
    Ok(())
}
