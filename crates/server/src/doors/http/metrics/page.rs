//! One page of metrics: families with a name, a unit and a help text, in the formats that Prometheus reads.

use std::borrow::Cow;
use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Unit;

use crate::metrics::Counted;

/// The labels of one series.
pub(super) type Labels = Vec<(&'static str, Cow<'static, str>)>;

/// A page while it is written.
pub(super) struct Page<'a>(DescriptorEncoder<'a>);

/// One label.
pub(super) fn label(name: &'static str, value: impl Into<Cow<'static, str>>) -> Labels {
    vec![(name, value.into())]
}

impl<'a> Page<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Page<'a> {
        Page(encoder)
    }

    /// One number that rises and falls.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.gauges(name, help, [(Labels::new(), value)])
    }

    /// One number that only rises. `_total` is added to its name.
    pub(super) fn counter<V: EncodeCounterValue>(&mut self, name: &str, help: &str, value: V) -> fmt::Result {
        self.counters(name, help, [(Labels::new(), value)])
    }

    pub(super) fn gauges<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, values, |series, value| series.encode_gauge(&value))
    }

    pub(super) fn counters<V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, values, |series, value| {
            series.encode_counter(&value, None::<&Exemplar<NoLabelSet, f64>>)
        })
    }

    pub(super) fn histograms(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, Counted)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Histogram, values, |series, Counted { buckets, count, sum }| {
            series.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        })
    }

    /// Nothing of a family without a series.
    fn family<V>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        values: impl IntoIterator<Item = (Labels, V)>,
        encode: impl Fn(&mut MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        let (name, unit) = split_unit(name);
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, value) in values {
            if labels.is_empty() {
                encode(&mut family, value)?;
            } else {
                encode(&mut family.encode_family(&labels)?, value)?;
            }
        }
        Ok(())
    }
}

/// A unit is the last part of a name, and is said by itself, too.
fn split_unit(name: &str) -> (&str, Option<Unit>) {
    for (end, unit) in [("_seconds", Unit::Seconds), ("_bytes", Unit::Bytes)] {
        if let Some(rest) = name.strip_suffix(end) {
            return (rest, Some(unit));
        }
    }
    (name, None)
}
