//! Opens PFX files (PKCS#12, RFC 7292). This is the one place that knows the library for them, which the feature `pfx`
//! brings; without it every such file is refused with a sentence that says what to do.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::material::{About, Fault};
use crate::model::Secret;

/// How to turn a PFX file into what is read in any case.
const CONVERT: &str = "openssl pkcs12 -in OLD.pfx -nodes -out NEW.pem";

/// What a PFX file holds, in no order.
pub(crate) struct Opened {
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(crate) keys: Vec<PrivateKeyDer<'static>>,
}

/// Opens a PFX file. One without a password is opened with an empty one, which is how Key Vault writes them.
#[cfg(feature = "pfx")]
pub(crate) fn open(der: &[u8], password: Option<&Secret>) -> Result<Opened, Fault> {
    use p12_keystore::Pkcs12Archive;
    use rustls::pki_types::PrivatePkcs8KeyDer;

    let archive = Pkcs12Archive::from_pkcs12(der, password.map_or("", Secret::expose))
        .map_err(|error| explain(&error, password))?;
    let certificates = archive.certs.iter();
    let keys = archive.keys.iter();
    Ok(Opened {
        certificates: certificates
            .map(|bag| bag.cert.as_der().to_vec().into())
            .collect(),
        keys: keys
            .map(|bag| PrivatePkcs8KeyDer::from(bag.key.as_der().to_vec()).into())
            .collect(),
    })
}

#[cfg(feature = "pfx")]
fn explain(error: &p12_keystore::error::Error, password: Option<&Secret>) -> Fault {
    use p12_keystore::error::Error;

    match (error, password) {
        (Error::MacError(_), Some(_)) => {
            Fault::new(About::Password, "the password does not open the PFX file")
        }
        (Error::MacError(_), None) => Fault::new(
            About::File,
            "the PFX file needs a password, or was written without any",
        )
        .hint(format!(
            "name it with password = \"env:NAME\"; or convert the file to PEM: {CONVERT}"
        )),
        (
            Error::UnsupportedEncryptionScheme
            | Error::UnsupportedMacAlgorithm
            | Error::UnsupportedContentType
            | Error::UnsupportedCertificateType
            | Error::InvalidParameters
            | Error::InvalidVersion,
            _,
        ) => Fault::new(
            About::File,
            "the PFX file is protected in a way that cannot be read here",
        )
        .hint(format!("convert it to PEM: {CONVERT}")),
        _ => Fault::new(About::File, "the PFX file is damaged or cut short"),
    }
}

/// Refuses: this build lacks the library.
#[cfg(not(feature = "pfx"))]
pub(crate) fn open(_: &[u8], _: Option<&Secret>) -> Result<Opened, Fault> {
    Err(
        Fault::new(About::File, "this build cannot read PFX files").hint(format!(
            "build it with `--features pfx`, or convert the file to PEM: {CONVERT}"
        )),
    )
}
