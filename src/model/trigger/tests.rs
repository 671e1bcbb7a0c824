use proptest::prelude::*;

use super::TriggerUrlError as Error;
use super::{ADDRESS_CHARS_MAX, Cloud, Family, RelativePathError, TriggerUrl};

const ID: &str = "0123456789abcdef0123456789abcdef";
const SIG: &str = "CANARYabcdefghijklmnopqrstuvwxyz0123456789_";

fn old(host: &str) -> String {
    format!("https://{host}/workflows/{ID}/triggers/manual/paths/invoke?api-version=2016-06-01")
}

fn new(host: &str, unit: &str) -> String {
    format!(
        "https://{host}/powerautomate/automations/direct/{unit}workflows/{ID}\
         /triggers/manual/paths/invoke?api-version=1"
    )
}

fn signed(address: &str) -> String {
    format!("{address}&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig={SIG}")
}

fn u1() -> String {
    signed(&old("prod-12.westeurope.logic.azure.com:443"))
}

fn standard() -> String {
    format!(
        "https://app.azurewebsites.net:443/api/Order/triggers/When_an_HTTP_request_is_received/invoke\
         ?api-version=2022-05-01&sp=%2Ftriggers%2Fx%2Frun&sv=1.0&sig={SIG}"
    )
}

fn refused(address: &str) -> Error {
    match TriggerUrl::parse(address) {
        Err(error) => {
            assert!(!error.to_string().contains("CANARY"), "{error}");
            assert!(!error.to_string().ends_with('.'), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.ends_with('.')), "{error}");
            error
        }
        Ok(url) => panic!("accepted {address}: {url}"),
    }
}

#[test]
fn every_family_and_cloud_is_known_by_its_address() {
    let env = "0123456789abcdef0123456789abcd.ef.environment.api.powerplatform.com:443";
    let one = "default0123456789abcdef0123456789abcde.f.environment";
    let cases = [
        (u1(), Family::Consumption, Some(Cloud::Public)),
        (
            old("prod2-07.westus.logic.azure.com"),
            Family::Consumption,
            Some(Cloud::Public),
        ),
        (
            old("prod-03.usgovtexas.logic.azure.us:443"),
            Family::Consumption,
            None,
        ),
        (
            old("prod2-03.usgovtexas.logic.azure.us:443"),
            Family::Consumption,
            None,
        ),
        (
            old("prod-01.usdodcentral.logic.azure.us:443"),
            Family::Consumption,
            Some(Cloud::Dod),
        ),
        (
            old("prod-01.chinaeast2.logic.azure.cn:443"),
            Family::Consumption,
            Some(Cloud::China),
        ),
        (new(env, ""), Family::PowerPlatform, Some(Cloud::Public)),
        (signed(&new(env, "")), Family::PowerPlatform, Some(Cloud::Public)),
        (
            new(env, "cu/07/"),
            Family::PowerPlatformScaleUnit,
            Some(Cloud::Public),
        ),
        (
            new(&format!("{one}.api.gov.powerplatform.microsoft.us:443"), ""),
            Family::PowerPlatform,
            Some(Cloud::Gcc),
        ),
        (
            new(&format!("{one}.api.high.powerplatform.microsoft.us"), "cu/01/"),
            Family::PowerPlatformScaleUnit,
            Some(Cloud::GccHigh),
        ),
        (
            new(&format!("{one}.api.appsplatform.us"), ""),
            Family::PowerPlatform,
            Some(Cloud::Dod),
        ),
        (
            new(&format!("{one}.api.powerplatform.partner.microsoftonline.cn"), ""),
            Family::PowerPlatform,
            Some(Cloud::China),
        ),
        (standard(), Family::Standard, None),
    ];
    for (address, family, cloud) in cases {
        let url = TriggerUrl::parse(&address).unwrap();
        assert_eq!((url.family(), url.cloud()), (family, cloud), "{address}");
        assert_eq!(url.warning(), None, "{address}");
    }
}

#[test]
fn the_presets_of_a_cloud_keep_every_slash() {
    for cloud in Cloud::ALL {
        assert_eq!(cloud.scope(), format!("{}/.default", cloud.audience()));
        assert!(cloud.scope().ends_with("//.default"), "{}", cloud.scope());
        assert!(!cloud.authority().ends_with('/'), "{}", cloud.authority());
        assert_eq!(Cloud::from_name(cloud.name()), Some(cloud));
    }
    assert_eq!(
        Cloud::Public.scope(),
        "https://service.flow.microsoft.com//.default"
    );
    assert_eq!(Cloud::from_name("Public"), None);
}

#[test]
fn an_explicit_443_is_dropped_and_any_other_port_is_kept() {
    let url = TriggerUrl::parse(&u1()).unwrap();
    assert_eq!(
        (url.host(), url.port()),
        ("prod-12.westeurope.logic.azure.com", 443)
    );
    assert_eq!(url.authority(), "prod-12.westeurope.logic.azure.com");
    let url = TriggerUrl::parse(&old("LOCALHOST:8443")).unwrap();
    assert_eq!(
        (url.host(), url.port(), url.authority()),
        ("localhost", 8443, "localhost:8443")
    );
    let url = TriggerUrl::parse(&old("[::1]:8443")).unwrap();
    assert_eq!(
        (url.host(), url.port(), url.authority()),
        ("::1", 8443, "[::1]:8443")
    );
    let url = TriggerUrl::parse(&old("127.0.0.1")).unwrap();
    assert_eq!((url.host(), url.authority()), ("127.0.0.1", "127.0.0.1"));
}

#[test]
fn path_and_query_leave_as_they_were_configured() {
    let address = u1();
    let url = TriggerUrl::parse(&address).unwrap();
    let sent = address
        .strip_prefix("https://prod-12.westeurope.logic.azure.com:443")
        .unwrap();
    assert_eq!(url.path_and_query().as_str(), sent);
    assert_eq!(url.exposed_path_and_query().expose(), sent);
    assert_eq!(
        TriggerUrl::parse("https://localhost")
            .unwrap()
            .path_and_query()
            .as_str(),
        "/"
    );
    assert_eq!(
        TriggerUrl::parse("https://localhost?a=1")
            .unwrap()
            .path_and_query()
            .as_str(),
        "/?a=1"
    );
}

#[test]
fn the_signature_is_never_shown() {
    let url = TriggerUrl::parse(&format!("{}&code=CANARY", u1())).unwrap();
    let shown = format!("{url} {url:?} {:?}", url.exposed_path_and_query());
    assert!(!shown.contains("CANARY"), "{shown}");
    assert!(shown.contains("/paths/invoke?api-version=2016-06-01"), "{shown}");
    assert!(!shown.contains("sp="), "{shown}");
}

#[test]
fn the_unsigned_query_keeps_every_other_byte() {
    let url = TriggerUrl::parse("https://localhost/a?b=%2f&SIG=1&api-version=1&sp=x&%73v=2&c=/&d").unwrap();
    assert_eq!(url.path_and_query_unsigned(), "/a?b=%2f&api-version=1&c=/&d");
    assert!(url.is_signed());
    let bare = TriggerUrl::parse("https://localhost/a?sig=1").unwrap();
    assert_eq!(bare.path_and_query_unsigned(), "/a");
}

#[test]
fn an_unknown_host_is_accepted_with_a_warning() {
    let url = TriggerUrl::parse(&old("localhost:8443")).unwrap();
    assert_eq!((url.family(), url.cloud()), (Family::Other, None));
    let warning = url.warning().unwrap();
    assert!(
        warning.contains("localhost is not an address of a flow trigger known to Flowgate"),
        "{warning}"
    );
    let url = TriggerUrl::parse("https://prod-1.westus.logic.azure.com/hook").unwrap();
    assert!(url.warning().unwrap().contains("/invoke"), "{url}");
}

#[test]
fn a_url_cut_at_the_ampersand_is_named() {
    let cut = TriggerUrl::parse(&old("prod-12.westeurope.logic.azure.com")).unwrap();
    assert!(!cut.looks_cut());
    assert_eq!(cut.require_bearer(), Ok(()));
    let error = cut.require_signed().unwrap_err();
    assert_eq!(error, Error::CutAtAmpersand);
    assert!(error.hint().unwrap().contains("first &"), "{error}");
}

#[test]
fn a_signature_that_lost_its_end_is_named() {
    let address = format!(
        "{}&sp=%2Ftriggers%2Fmanual%2Frun",
        old("prod-12.westeurope.logic.azure.com")
    );
    let url = TriggerUrl::parse(&address).unwrap();
    assert!(url.looks_cut() && !url.is_signed());
    assert_eq!(url.require_signed(), Err(Error::SignatureTorn));
    assert!(url.warning().is_some());
}

#[test]
fn a_signed_url_and_an_identity_exclude_each_other() {
    let url = TriggerUrl::parse(&u1()).unwrap();
    assert_eq!(url.require_signed(), Ok(()));
    let error = url.require_bearer().unwrap_err();
    assert_eq!(error, Error::SignedAndIdentity);
    assert!(error.hint().unwrap().contains("one scheme only"), "{error}");
}

#[test]
fn a_trace_of_copying_around_the_address_is_named() {
    let u1 = u1();
    let cases = [
        (String::new(), Error::Empty),
        ("  \n".to_owned(), Error::Empty),
        (
            "x".repeat(ADDRESS_CHARS_MAX + 1),
            Error::TooLong {
                chars: ADDRESS_CHARS_MAX + 1,
            },
        ),
        (format!(" {u1}"), Error::Wrapped { found: ' ' }),
        (format!("{u1}\n"), Error::Wrapped { found: '\n' }),
        (format!("\"{u1}\""), Error::Wrapped { found: '"' }),
        (format!("<{u1}>"), Error::Wrapped { found: '<' }),
        (format!("{u1}>"), Error::Wrapped { found: '>' }),
        (
            format!("\u{201c}{u1}\u{201d}"),
            Error::Wrapped { found: '\u{201c}' },
        ),
        (format!("\u{feff}{u1}"), Error::Wrapped { found: '\u{feff}' }),
        (format!("{u1},"), Error::TrailingJunk { found: ',' }),
        (format!("{u1})"), Error::TrailingJunk { found: ')' }),
        (format!("{u1}&"), Error::TrailingJunk { found: '&' }),
        (format!("{u1}%20"), Error::TrailingJunk { found: ' ' }),
        (format!("{u1}{u1}"), Error::TwoAddresses),
        (u1.replace("westeurope", "<region>"), Error::Placeholder),
        (
            u1.replace("/invoke", "/invoke/address/{postalCode}"),
            Error::Placeholder,
        ),
        (u1.replace("&sv", " &sv"), Error::Whitespace),
        (u1.replace("&sv", "\n&sv"), Error::Whitespace),
        (u1.replace("&sv", "\u{1b}&sv"), Error::Control),
        (u1.replace("&sv", "%0A&sv"), Error::Control),
        (
            u1.replace("manual/", "m\u{e4}nual/"),
            Error::NotAscii { found: '\u{e4}' },
        ),
        (format!("{u1}\u{2026}"), Error::NotAscii { found: '\u{2026}' }),
    ];
    for (address, error) in cases {
        assert_eq!(refused(&address), error, "{address}");
    }
}

#[test]
fn a_mistake_before_the_path_is_named() {
    let u1 = u1();
    let cases = [
        (u1.replace("https", "http"), Error::PlainHttp),
        (u1.replace("https://", ""), Error::NotHttps),
        (u1.replace("https://", "ftp://"), Error::NotHttps),
        (u1.replace("https://", "https://user:CANARY@"), Error::UserInfo),
        ("https:///workflows".to_owned(), Error::NoHost),
        ("https://:443/".to_owned(), Error::NoHost),
        ("https://0X11ss/".to_owned(), Error::BadHost),
        ("https://a..b/".to_owned(), Error::BadHost),
        ("https://a.b./".to_owned(), Error::BadHost),
        ("https://999.1.1.1/".to_owned(), Error::BadHost),
        ("https://[::1/".to_owned(), Error::BadHost),
        ("https://[::g]/".to_owned(), Error::BadHost),
        ("https://a:0/".to_owned(), Error::BadPort),
        ("https://a:65536/".to_owned(), Error::BadPort),
        ("https://a:+1/".to_owned(), Error::BadPort),
        ("https://a:/".to_owned(), Error::BadPort),
        (u1.replace(":443", ":433"), Error::PortTypo),
    ];
    for (address, error) in cases {
        assert_eq!(refused(&address), error, "{address}");
    }
}

#[test]
fn a_mistake_in_path_or_query_is_named() {
    let u1 = u1();
    let u4 = new(
        "0123456789abcdef0123456789abcd.ef.environment.api.powerplatform.com",
        "",
    );
    let cases = [
        (format!("{u1}#x"), Error::Fragment),
        (u1.replace("&sv", "\\&sv"), Error::Character { found: '\\' }),
        (u1.replace("%2Fmanual", "%2"), Error::Escape),
        (u1.replace("%2F", "%252F"), Error::TwiceEncoded),
        (u1.replace("%2F", "%25252F"), Error::TwiceEncoded),
        (u1.replace("?api-version", "%3Fapi-version"), Error::TwiceEncoded),
        (
            u1.replace("&sp", "%26sp").replace("sp=", "sp%3D"),
            Error::TwiceEncoded,
        ),
        (
            u1.replace('&', "&amp;"),
            Error::EscapedAmpersand { spelling: "&amp;" },
        ),
        (
            u1.replace('&', "\\u0026"),
            Error::EscapedAmpersand { spelling: "\\u0026" },
        ),
        (u1.replace('?', "&"), Error::QuestionMarkLost),
        (u1.replace("/invoke", "/invoke//x"), Error::BadPath),
        (u1.replace("/invoke", "/invoke/../x"), Error::BadPath),
        (u4.replace("?api-version=1", ""), Error::MissingApiVersion),
        (
            old("localhost:8443").replace("api-version", "version"),
            Error::MissingApiVersion,
        ),
        (u1.replace("&sp", "?sp"), Error::BadApiVersion),
        (
            u1.replace("2016-06-01", ""),
            Error::EmptyValue { key: "api-version" },
        ),
        (u1.replace(SIG, ""), Error::EmptyValue { key: "sig" }),
        (format!("{u1}&sig=x"), Error::RepeatedKey { key: "sig" }),
        (
            format!("{u1}&Api-Version=1"),
            Error::RepeatedKey { key: "api-version" },
        ),
        (format!("{u1}&sp=x"), Error::RepeatedKey { key: "sp" }),
        (format!("{u1}&sv=x"), Error::RepeatedKey { key: "sv" }),
    ];
    for (address, error) in cases {
        assert_eq!(refused(&address), error, "{address}");
    }
}

#[test]
fn a_designer_or_management_address_is_not_a_trigger() {
    for host in [
        "make.powerautomate.com",
        "make.gov.powerautomate.us",
        "flow.microsoft.com",
        "us.flow.microsoft.com",
        "make.powerapps.com",
        "portal.azure.com",
    ] {
        let error = refused(&format!("https://{host}/environments/x/flows/y/details"));
        assert_eq!(
            error,
            Error::DesignerAddress {
                host: host.to_owned()
            }
        );
    }
    for host in [
        "api.flow.microsoft.com",
        "emea.api.flow.microsoft.com",
        "management.azure.com",
        "api.powerplatform.com",
        "service.flow.microsoft.com",
    ] {
        let error = refused(&format!("https://{host}/x?api-version=2016-11-01"));
        assert_eq!(
            error,
            Error::ManagementAddress {
                host: host.to_owned()
            }
        );
    }
}

#[test]
fn an_address_may_be_the_value_of_another_parameter() {
    let url = TriggerUrl::parse(&format!("{}&source=https://erp.example", u1())).unwrap();
    assert_eq!(url.family(), Family::Consumption);
    let hash = u1().replace("/invoke", "/invoke/a%25%23b");
    assert_eq!(TriggerUrl::parse(&hash).unwrap().family(), Family::Consumption);
}

#[test]
fn a_relative_path_goes_between_invoke_and_the_query() {
    let url =
        TriggerUrl::parse("https://localhost:1/workflows/i/triggers/m/paths/invoke?api-version=1").unwrap();
    let whole = "/workflows/i/triggers/m/paths/invoke/address/12345?api-version=1";
    for rest in ["address/12345", "/address/12345"] {
        assert_eq!(url.with_relative(rest).unwrap().as_str(), whole);
    }
    assert_eq!(url.with_relative("").unwrap(), *url.path_and_query());
    let slashed =
        TriggerUrl::parse("https://localhost:1/workflows/i/triggers/m/paths/invoke/?api-version=1").unwrap();
    assert_eq!(slashed.with_relative("/address/12345").unwrap().as_str(), whole);
    assert!(url.with_relative("a%20b/c.d/...e/%25%23").is_ok());
}

#[test]
fn a_relative_path_cannot_leave_the_trigger() {
    let url = TriggerUrl::parse(&u1()).unwrap();
    let cases = [
        ("//a", RelativePathError::EmptySegment),
        ("a//b", RelativePathError::EmptySegment),
        ("a/", RelativePathError::EmptySegment),
        ("..", RelativePathError::DotSegment),
        ("a/../b", RelativePathError::DotSegment),
        ("./a", RelativePathError::DotSegment),
        ("%2e%2E/a", RelativePathError::DotSegment),
        (".%2e", RelativePathError::DotSegment),
        ("%252e%25252e", RelativePathError::DotSegment),
        ("a%2f..%2Fb", RelativePathError::DotSegment),
        ("a%5c..%5Cb", RelativePathError::DotSegment),
        ("a%252f..", RelativePathError::DotSegment),
        ("a?b", RelativePathError::Character),
        ("a#b", RelativePathError::Character),
        ("a b", RelativePathError::Character),
        ("a\\b", RelativePathError::Character),
        ("\u{e4}", RelativePathError::Character),
        ("a%00", RelativePathError::Control),
        ("a%250d", RelativePathError::Control),
        ("a%zz", RelativePathError::Escape),
        ("a%2", RelativePathError::Escape),
        (&"x".repeat(ADDRESS_CHARS_MAX), RelativePathError::TooLong),
    ];
    for (rest, error) in cases {
        assert_eq!(url.with_relative(rest).unwrap_err(), error, "{rest}");
    }
}

proptest! {
    #[test]
    fn no_text_ends_the_parser(text in any::<String>(), tail in "[ -~]{0,60}") {
        let _ = TriggerUrl::parse(&text);
        for address in [format!("https://{tail}"), format!("{}{tail}", u1())] {
            match TriggerUrl::parse(&address) {
                Ok(url) => {
                    let _ = (url.warning(), url.with_relative(&text), url.with_relative(&tail));
                }
                Err(error) => { let _ = error.hint(); }
            }
        }
    }

    #[test]
    fn an_address_printed_and_parsed_again_is_the_same(
        host in "[a-z]{1,9}(\\.[a-z]{2,5}){0,2}",
        port in 1u16..,
        path in "(/[A-Za-z0-9_.~-]{1,8}){0,4}/x",
        query in "(\\?[a-z]{4,6}=[A-Za-z0-9%/:@]{0,6}x)?",
    ) {
        let address = format!("https://{host}:{port}{path}{query}");
        let Ok(url) = TriggerUrl::parse(&address) else { return Ok(()) };
        prop_assert_eq!(url.path_and_query().as_str(), format!("{path}{query}"));
        let printed = format!("https://{}{}", url.authority(), url.exposed_path_and_query().expose());
        let again = TriggerUrl::parse(&printed).unwrap();
        prop_assert!(again.same_as(&url));
        prop_assert_eq!(again.port(), port);
    }

    #[test]
    fn no_spelling_of_the_query_shows_the_signature(
        before in "[a-zA-Z0-9&=%.]{0,20}",
        after in "[a-zA-Z0-9&=%./-]{0,20}",
    ) {
        let base = old("prod-12.westeurope.logic.azure.com");
        for address in [
            format!("{base}{before}&sig={SIG}{after}"),
            format!("https://localhost/{before}?{after}&sig={SIG}"),
            format!("https://localhost/x?sig={SIG}&{after}"),
        ] {
            let shown = match TriggerUrl::parse(&address) {
                Ok(url) => format!("{url} {url:?} {:?} {:?}", url.warning(), url.api_version()),
                Err(error) => format!("{error} {error:?} {:?}", error.hint()),
            };
            prop_assert!(!shown.contains("CANARY"), "{}", shown);
        }
    }

    #[test]
    fn an_accepted_relative_path_adds_neither_query_nor_dots(rest in "[a-z./?#%25ef\\\\-]{0,20}") {
        let url = TriggerUrl::parse(&u1()).unwrap();
        let Ok(sent) = url.with_relative(&rest) else { return Ok(()) };
        prop_assert_eq!(sent.query(), url.path_and_query().query());
        let decoded = percent_encoding::percent_decode_str(sent.path()).decode_utf8_lossy().into_owned();
        prop_assert!(!decoded.split(['/', '\\']).any(|part| part == ".." || part == "."), "{}", decoded);
        prop_assert!(!sent.path().contains("//"));
    }
}
