//! `consumers`, `consumers_file` and `plans`.

use std::sync::Arc;

use crate::config::Loaded;
use crate::filters::{Consumers, SharedValues};
use crate::live::{ConsumerTable, Live};
use crate::notation::{Mistakes, Place, nearest};

/// Compiles the consumers. Those of the file are loaded if it has changed, and kept up to date from then on.
pub fn compile(
    loaded: &Loaded,
    live: &Live,
    shared: &mut SharedValues,
    mistakes: &mut Mistakes,
    warnings: &mut Mistakes,
) -> Consumers {
    let (config, root) = (&loaded.config, Place::default());
    let plans = config.plans.iter().map(|(name, plan)| (name.as_str().into(), Arc::new(plan.allowance()))).collect();
    for name in config.plans.keys() {
        let place = root.key("plans").key(name.clone());
        mistakes.take(&place, crate::config::is_name(name).map_err(|expected| format!("expected {expected}")));
    }
    let mut table = ConsumerTable::default();
    for (name, consumer) in &config.consumers {
        let place = root.key("consumers").key(name.clone());
        if consumer.credentials.is_empty() {
            mistakes.add(&place.key("credentials"), "expected at least 1 in this list");
        }
        if let Some(plan) = consumer.plan.as_ref().filter(|plan| !config.plans.contains_key(&plan.0))
            && !loaded.is_partial("plans")
        {
            let near = nearest(&plan.0, config.plans.keys().map(String::as_str));
            mistakes.add(&place.key("plan"), format!("there is no plan \"{}\"{near}", plan.0));
        }
        table.add(name, consumer, &place, mistakes);
    }
    let place = root.key("consumers_file");
    let file = config.consumers_file.as_ref().map(|path| live.consumers(&loaded.base.join(path)));
    if let Some(file) = &file {
        match file.load() {
            Ok(()) => check_file(loaded, &file.table(), &place, mistakes, warnings),
            Err(why) => mistakes.add(&place, format!("cannot be used: {why}")),
        }
        shared.keep(Arc::clone(file) as _);
    }
    Consumers::new(table, file, plans)
}

/// Notes what the file has and does not fit the configuration.
fn check_file(
    loaded: &Loaded,
    of_file: &ConsumerTable,
    place: &Place,
    mistakes: &mut Mistakes,
    warnings: &mut Mistakes,
) {
    for plan in of_file.plans().filter(|plan| !loaded.config.plans.contains_key(&***plan)) {
        warnings.add(place, format!("consumers of the file have the plan {plan}, which is not one of plans"));
    }
    for name in loaded.config.consumers.keys().filter(|name| of_file.by_name(name).is_some()) {
        mistakes.add(place, format!("the consumer {name} of the file is in the configuration too"));
    }
}
