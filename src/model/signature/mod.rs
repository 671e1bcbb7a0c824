//! How vendors sign their webhooks, as plain data: a recipe says where the signature is, what it covers and how it was made.
//! A preset is the recipe of one vendor, and the settings write the same recipe by hand. `policy/proof/signature` is the
//! machine that checks requests with it.

mod place;
mod preset;
mod recipe;
mod shapes;
mod template;
mod vendors;

pub use place::Place;
pub use preset::{Habits, Preset};
pub use recipe::{
    Algorithm, CertificateRecipe, Content, Encoding, KeyForm, Recipe, RecipeError, SECRETS_MAX, SecretOrigin,
    SigningSecret, TimeUnit, TimestampPlace, TimestampRecipe,
};
pub use template::{Piece, Template};
