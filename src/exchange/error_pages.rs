//! Pages for rejections: by status or class of statuses, in the form that the client prefers.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::HeaderValue;
use http::header::ACCEPT;

use super::template::{ErrorFacts, RequestView, Template, TextForm, TextScope};
use super::{Reason, Rejection};
use crate::rules::payload::preferred_type;

/// The pages of one level: of a route, of a listener, or of the configuration.
#[derive(Clone, Debug, Default)]
pub struct ErrorPages(Vec<(StatusRange, Arc<ErrorPage>)>);

/// The statuses that a page is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatusRange {
    /// One status.
    One(u16),
    /// The statuses of a class: `4` for 4xx.
    Class(u16),
}

/// A page, in each form in which it is written.
#[derive(Clone, Debug, Default)]
pub struct ErrorPage {
    /// HTML.
    pub html: Option<Template>,
    /// JSON.
    pub json: Option<Template>,
    /// Plain text.
    pub text: Option<Template>,
}

/// A body and its media type.
#[derive(Debug)]
pub struct RenderedPage {
    /// The `Content-Type`.
    pub content_type: HeaderValue,
    /// The body.
    pub body: Bytes,
}

impl ErrorPages {
    /// Returns the pages; one for a status comes before one for its class.
    pub fn new(mut pages: Vec<(StatusRange, ErrorPage)>) -> Self {
        pages.sort_by_key(|(range, _)| *range);
        Self(pages.into_iter().map(|(range, page)| (range, Arc::new(page))).collect())
    }

    fn find(&self, status: u16) -> Option<&ErrorPage> {
        let is_for = |range: &StatusRange| match range {
            StatusRange::One(one) => *one == status,
            StatusRange::Class(class) => *class == status / 100,
        };
        self.0.iter().find(|(range, _)| is_for(range)).map(|(_, page)| &**page)
    }
}

/// The page for browsers where the configuration has none.
const BROWSER_PAGE: &str = include_str!("error_page.html");

static FOR_BROWSERS: LazyLock<Template> = LazyLock::new(|| {
    let scope = TextScope { errors: true, ..TextScope::outside(TextForm::Html) };
    Template::new(BROWSER_PAGE, &scope).unwrap_or_else(|_| Template::empty())
});

/// Returns the page for a rejection, from the first of `levels` that has one for its status; `None` where a problem
/// document is preferred, for which nobody wrote a page.
pub fn error_page(rejection: &Rejection, view: &RequestView<'_>, levels: [&ErrorPages; 3]) -> Option<RenderedPage> {
    let status = rejection.http_status();
    if rejection.reason == Reason::Preflight {
        return None;
    }
    let page = levels.iter().find_map(|pages| pages.find(status));
    let accept = || view.request.headers.get_all(ACCEPT).iter().map(HeaderValue::as_bytes);
    let mut offered = vec!["application/json", "text/html"];
    if page.is_some_and(|page| page.text.is_some()) {
        offered.push("text/plain");
    }
    let chosen = preferred_type(accept(), &offered);
    let (template, content_type) = match (chosen, page) {
        (1, page) => (page.and_then(|page| page.html.as_ref()).unwrap_or(&FOR_BROWSERS), "text/html; charset=utf-8"),
        (2, Some(page)) => (page.text.as_ref()?, "text/plain; charset=utf-8"),
        (_, page) => (page?.json.as_ref()?, "application/json"),
    };
    let response = Some(ErrorFacts { status, reason: rejection.reason, detail: &rejection.detail });
    let body = template.fill(&RequestView { response, ..*view }).into();
    Some(RenderedPage { content_type: HeaderValue::from_static(content_type), body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Exchange;
    use pingora::http::RequestHeader;

    fn page(levels: [&ErrorPages; 3], accept: &str) -> String {
        let mut request = RequestHeader::build("GET", b"/", None).expect("a request");
        request.insert_header(ACCEPT, accept).expect("a header");
        let exchange = Exchange::default();
        let view = RequestView { request: &request, exchange: &exchange, pattern: None, response: None };
        let rejection = Rejection::new(Reason::RouteNotFound, "<detail>");
        let page = error_page(&rejection, &view, levels);
        page.map_or_else(|| "problem".to_owned(), |page| String::from_utf8_lossy(&page.body).into_owned())
    }

    fn template(text: &str, form: TextForm) -> Option<Template> {
        Template::new(text, &TextScope { errors: true, ..TextScope::outside(form) }).ok()
    }

    #[test]
    fn the_nearest_page_in_the_form_that_is_preferred() {
        let none = ErrorPages::default();
        let class = ErrorPage { html: template("<b>{detail}</b>", TextForm::Html), ..ErrorPage::default() };
        let one = ErrorPage {
            json: template("{\"status\": {status}}", TextForm::Json),
            text: template("{reason}", TextForm::Plain),
            ..ErrorPage::default()
        };
        let far = ErrorPages::new(vec![(StatusRange::Class(4), class.clone()), (StatusRange::One(500), one.clone())]);
        let near = ErrorPages::new(vec![(StatusRange::Class(4), class), (StatusRange::One(404), one)]);
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert!(page([&none, &none, &none], browser).contains("&lt;detail&gt;"));
        assert_eq!(page([&none, &none, &none], "*/*"), "problem");
        assert_eq!(page([&none, &none, &far], browser), "<b>&lt;detail&gt;</b>");
        assert_eq!(page([&none, &none, &far], "application/json"), "problem");
        assert_eq!(page([&near, &none, &far], "*/*"), "{\"status\": 404}");
        assert_eq!(page([&near, &none, &far], "text/plain"), "route_not_found");
        assert!(page([&near, &none, &far], "text/html").contains("<!doctype html>"));
    }
}
