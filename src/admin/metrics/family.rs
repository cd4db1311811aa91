//! Writes metric families; a thin cover over the encoder.

use std::fmt::Error;

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

pub(super) struct Out<'a>(pub(super) DescriptorEncoder<'a>);

impl Out<'_> {
    pub(super) fn start<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<Family<'s>, Error> {
        Ok(Family(self.0.encode_descriptor(name, help, None, kind)?))
    }

    pub(super) fn gauge<'s>(&'s mut self, name: &'s str, help: &str) -> Result<Family<'s>, Error> {
        self.start(name, help, MetricType::Gauge)
    }

    pub(super) fn counter<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
    ) -> Result<Family<'s>, Error> {
        self.start(name, help, MetricType::Counter)
    }
}

pub(super) struct Family<'a>(MetricEncoder<'a>);

pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Family<'_> {
    pub(super) fn gauge(&mut self, labels: Labels<'_>, value: f64) -> Result<(), Error> {
        ConstGauge::new(value).encode(self.0.encode_family(&labels)?)
    }

    pub(super) fn counter(&mut self, labels: Labels<'_>, value: u64) -> Result<(), Error> {
        ConstCounter::new(value).encode(self.0.encode_family(&labels)?)
    }

    pub(super) fn histogram(
        &mut self,
        labels: Labels<'_>,
        sum: f64,
        count: u64,
        buckets: &[(f64, u64)],
    ) -> Result<(), Error> {
        self.0.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
    }

    pub(super) fn plain(self, value: f64) -> Result<(), Error> {
        ConstGauge::new(value).encode(self.0)
    }

    pub(super) fn plain_counter(self, value: u64) -> Result<(), Error> {
        ConstCounter::new(value).encode(self.0)
    }
}
