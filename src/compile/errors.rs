//! `errors`: the pages for rejections.

use crate::config::{ErrorPageConfig, Errors};
use crate::exchange::{ErrorPage, ErrorPages, Reason, StatusRange, Template, TextForm, TextScope};
use crate::notation::{Mistakes, Place};

/// Compiles the pages of one level. `params` returns the parameters of the route's path.
pub fn compile(
    errors: &Errors,
    place: &Place,
    params: &dyn Fn() -> Vec<String>,
    mistakes: &mut Mistakes,
) -> ErrorPages {
    let mut pages = Vec::new();
    for (key, page) in errors {
        let place = place.key(key.clone());
        let Some(range) = mistakes.take(&place, status_range(key)) else { continue };
        if page.html.is_none() && page.json.is_none() && page.text.is_none() {
            mistakes.add(&place, "expected at least one of html, json and text");
        }
        pages.push((range, compile_page(page, &place, params, mistakes)));
    }
    ErrorPages::new(pages)
}

fn compile_page(
    page: &ErrorPageConfig,
    place: &Place,
    params: &dyn Fn() -> Vec<String>,
    mistakes: &mut Mistakes,
) -> ErrorPage {
    let mut template = |text: &Option<String>, form, key| {
        let scope = TextScope { form, errors: true, params };
        mistakes.take(&place.key(key), Template::new(text.as_ref()?, &scope))
    };
    ErrorPage {
        html: template(&page.html, TextForm::Html, "html"),
        json: template(&page.json, TextForm::Json, "json"),
        text: template(&page.text, TextForm::Plain, "text"),
    }
}

/// Returns the statuses that a key means: `404`, or `4xx`.
fn status_range(key: &str) -> Result<StatusRange, String> {
    let class = match key.strip_suffix("xx") {
        Some("4") => Some(4),
        Some("5") => Some(5),
        _ => None,
    };
    if let Some(class) = class {
        return Ok(StatusRange::Class(class));
    }
    match key.parse::<u16>() {
        Ok(status) if Reason::ALL.iter().any(|reason| reason.status() == status && status >= 400) => {
            Ok(StatusRange::One(status))
        }
        Ok(status @ 400..=599) => Err(format!("the gateway never responds with {status} itself")),
        _ => Err("expected a status such as 404, or 4xx or 5xx".to_owned()),
    }
}
