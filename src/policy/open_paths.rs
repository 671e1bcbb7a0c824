//! What of an API a route opens: a list of templates, and everything else is closed. The path was checked before, so that
//! it can be read in one way only; here it is compared with the list as it is.

use matchit::Router;

use crate::model::PathTemplate;
use crate::problem::{Kind, Problem};

/// The paths of an API that may be asked for.
#[derive(Debug, Clone)]
pub struct OpenPaths {
    templates: Router<()>,
}

impl OpenPaths {
    /// Builds the list. A template that another one contradicts is left out; the settings are checked for that.
    pub fn build(templates: &[PathTemplate]) -> Self {
        let mut list = Router::new();
        for template in templates {
            let _ = list.insert(&**template, ());
        }
        Self { templates: list }
    }

    /// Lets what follows the API's own path through, if it is listed.
    pub fn admit(&self, rest: &str) -> Result<(), Problem> {
        let slash = if rest.starts_with('/') { "" } else { "/" };
        match self.templates.at(&format!("{slash}{rest}")) {
            Ok(_) => Ok(()),
            Err(_) => Err(Problem::from(Kind::RouteUnknown)
                .detail("this path of the API is not open here")
                .because("the path of the API is not among the `paths` of the route")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::OpenPaths;
    use crate::model::PathTemplate;

    fn list(templates: &[&str]) -> OpenPaths {
        let templates = templates
            .iter()
            .map(|template| PathTemplate::parse(template).unwrap());
        let templates: Vec<_> = templates.collect();
        OpenPaths::build(&templates)
    }

    #[test]
    fn only_what_is_listed_is_open() {
        let open = list(&["/users/{id}", "/groups/{*all}", "/me"]);
        for good in ["users/1", "/users/a@b.example", "groups/1/members/2", "me"] {
            assert!(open.admit(good).is_ok(), "{good}");
        }
        for bad in [
            "users",
            "users/",
            "users/1/messages",
            "groups",
            "Me",
            "me/",
            "m%65",
            "$batch",
            "",
            "/",
            "//me",
        ] {
            assert!(open.admit(bad).is_err(), "{bad}");
        }
        assert!(list(&[]).admit("anything").is_err());
    }

    proptest! {
        #[test]
        fn a_list_without_parameters_lets_nothing_else_through(rest in "[a-z/%.]{0,12}") {
            let open = list(&["/a/b"]);
            assert_eq!(open.admit(&rest).is_ok(), rest == "a/b" || rest == "/a/b");
        }
    }
}
