//! Conversion of [`super::cells`] to Prometheus metric families.

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::cells::{HISTOGRAM_BOUNDS, Timings};

/// Labels, sorted by name.
type Labels<'l> = &'l [(&'l str, &'l str)];

fn metric(labels: Labels<'_>) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

/// Returns a family of counters.
pub fn counters(name: &str, help: &str, metrics: Vec<Metric>) -> MetricFamily {
    family(name, help, MetricType::COUNTER, metrics)
}

/// Returns a family of gauges.
pub fn gauges(name: &str, help: &str, metrics: Vec<Metric>) -> MetricFamily {
    family(name, help, MetricType::GAUGE, metrics)
}

/// Returns a family of histograms.
pub fn histograms(name: &str, help: &str, metrics: Vec<Metric>) -> MetricFamily {
    family(name, help, MetricType::HISTOGRAM, metrics)
}

/// Returns a counter.
pub fn counter(labels: Labels<'_>, value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = metric(labels);
    metric.set_counter(counter);
    metric
}

/// Returns a gauge.
pub fn gauge(labels: Labels<'_>, value: i64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value as f64);
    let mut metric = metric(labels);
    metric.set_gauge(gauge);
    metric
}

/// Returns a histogram.
pub fn histogram(labels: Labels<'_>, timings: &Timings) -> Metric {
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
    let mut metric = metric(labels);
    metric.set_histogram(histogram);
    metric
}
