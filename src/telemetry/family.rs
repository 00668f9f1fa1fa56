//! Conversion of values to Prometheus metric families.

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::catalogue::MetricFacts;
use super::cells::{HISTOGRAM_BOUNDS, Timings};

/// A metric with its series.
pub struct Series {
    facts: &'static MetricFacts,
    metrics: Vec<Metric>,
}

impl Series {
    /// Returns a metric without any series.
    pub fn of(facts: &'static MetricFacts) -> Self {
        Self { facts, metrics: Vec::new() }
    }

    fn metric(&self, values: &[&str]) -> Metric {
        debug_assert_eq!(values.len(), self.facts.labels.len(), "{}", self.facts.name);
        let pairs = self.facts.labels.iter().zip(values).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        Metric::from_label(pairs.collect())
    }

    /// Adds a series with the values of its labels, in the order of the catalogue.
    pub fn add(&mut self, values: &[&str], value: f64) {
        let mut metric = self.metric(values);
        if self.facts.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// Adds the series of a histogram.
    pub fn add_timings(&mut self, values: &[&str], timings: &Timings) {
        let counted = timings.counted();
        let mut all = 0;
        let buckets = HISTOGRAM_BOUNDS.iter().zip(counted.within).map(|(bound, within)| {
            all += within;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(all);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(counted.count);
        histogram.set_sample_sum(counted.seconds);
        let mut metric = self.metric(values);
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    /// Returns the family.
    pub fn family(self) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.facts.name.to_owned());
        family.set_help(self.facts.help.to_owned());
        family.set_field_type(self.facts.kind);
        family.set_metric(self.metrics);
        family
    }
}

/// Returns a metric without labels.
pub fn single(facts: &'static MetricFacts, value: f64) -> MetricFamily {
    let mut series = Series::of(facts);
    series.add(&[], value);
    series.family()
}
