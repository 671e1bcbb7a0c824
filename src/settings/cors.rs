//! `cors_origins` of a route: the origins whose pages may call it from a browser (CORS).

use crate::model::Flaw;
use crate::settings::check::Check;
use crate::settings::findings::Mark;
use crate::settings::origin::WebOrigin;
use crate::settings::route::RouteTable;
use crate::settings::table::Table;
use crate::settings::{CallerSettings, CallersSettings, RouteSettings};

/// Every request with an `Origin` is compared with each of them.
const ORIGINS_MAX: usize = 100;

impl Check<'_> {
    pub(super) fn cors_origins(&mut self, route: &Table<RouteTable>) -> Vec<WebOrigin> {
        let values = route.cors_origins.iter();
        let values = values.map(|value| (Mark::from(value), (**value).clone()));
        let origins = self.each_once(values, |_| "the origin is listed twice".to_owned());
        let Some(mark) = route.place("cors_origins") else {
            return origins;
        };
        if origins.len() > ORIGINS_MAX {
            let flaw = Flaw::new(format!("more than {ORIGINS_MAX} origins are listed"));
            self.findings.mistake(mark, flaw);
        }
        if origins.iter().any(|origin| !origin.is_encrypted()) {
            let flaw = Flaw::new("a page that comes over plain HTTP can be changed by anyone on its way");
            self.findings
                .warn(mark, flaw.hint("serve the page over HTTPS and list that origin"));
        }
        origins
    }

    /// Whatever a page sends as a key is known to all its visitors.
    pub(super) fn keys_in_pages(
        &mut self,
        tables: &[Table<RouteTable>],
        routes: &[RouteSettings],
        callers: &[CallerSettings],
    ) {
        for route in routes.iter().filter(|route| !route.cors_origins.is_empty()) {
            let CallersSettings::Named(names) = &route.callers else {
                continue;
            };
            let has_key = |caller: &&CallerSettings| !caller.keys.is_empty() && names.contains(&caller.name);
            let Some(caller) = callers.iter().find(has_key) else {
                continue;
            };
            let is_its = |table: &&Table<RouteTable>| {
                table.name.as_ref().map(|name| name.as_str()) == Some(route.name.as_str())
            };
            let table = tables.iter().find(is_its);
            if let Some(mark) = table.and_then(|table| table.place("cors_origins")) {
                let flaw = Flaw::new(format!(
                    "pages may call this route, and the caller \"{}\" has a key: a key in a page is public",
                    caller.name
                ));
                let hint = "give such pages a caller of their own with a small rate, whose key may be known to \
                            anyone, or let the page ask its own server, which has the key";
                self.findings.warn(mark, flaw.hint(hint));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::sample::{Sample, TRIGGER};

    fn route(lines: &str) -> Sample {
        let route = format!(
            "name = \"a\"\npath = \"/a\"\nidentity = \"contoso\"\ntrigger = \"{TRIGGER}\"\n{lines}\n"
        );
        Sample::default().with("route", &route)
    }

    #[test]
    fn origins_are_listed_once_and_not_without_number() {
        let twice = route("anonymous = true\ncors_origins = [\"https://a.example\", \"https://a.example\"]");
        assert_eq!(twice.mistakes(), ["the origin is listed twice"]);
        let many: Vec<_> = (0..101)
            .map(|number| format!("https://a{number}.example"))
            .collect();
        let many = route(&format!("anonymous = true\ncors_origins = {many:?}"));
        assert_eq!(many.mistakes(), ["more than 100 origins are listed"]);
    }

    #[test]
    fn a_page_over_plain_http_is_worth_a_warning() {
        let warnings = |origin: &str| {
            let sample = route(&format!("anonymous = true\ncors_origins = [\"{origin}\"]"));
            let warnings = sample.warnings().into_iter();
            warnings.filter(|what| what.contains("plain HTTP")).count()
        };
        assert_eq!(warnings("http://app.example.com"), 1);
        assert_eq!(warnings("http://localhost:3000"), 0);
        assert_eq!(warnings("https://app.example.com"), 0);
    }

    #[test]
    fn a_key_in_a_page_is_worth_a_warning() {
        let shop = |keys: &str| {
            let caller = format!("name = \"shop\"\nnetworks = [\"10.0.0.0/8\"]\n{keys}");
            let lines = "callers = [\"shop\"]\ncors_origins = [\"https://app.example.com\"]";
            route(lines).with("caller", &caller).warnings()
        };
        let key = format!(
            "[[caller.key]]\nlabel = \"a\"\ndigest = \"sha256:{}\"",
            "1".repeat(64)
        );
        let is_about_key = |what: &String| what.contains("\"shop\" has a key: a key in a page is public");
        assert!(shop(&key).iter().any(is_about_key), "{:?}", shop(&key));
        assert!(!shop("").iter().any(is_about_key));
    }
}
