//! The client credentials grant (RFC 6749 section 4.4): tokens in the application's own name.

use crate::entra::application::Application;
use crate::entra::grant::{Asked, Grant};

pub(crate) struct ClientCredentials(pub(crate) Application);

impl Grant for ClientCredentials {
    fn ask(&self) -> Asked<'_> {
        Box::pin(self.0.ask(&[("grant_type", "client_credentials")]))
    }
}
