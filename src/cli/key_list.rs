//! The table of keys that `flowgate key list` prints; the gateway that runs makes it.

use comfy_table::{ContentArrangement, Table, presets};

use crate::gateway::Gateway;
use crate::model::CallerName;

/// An answer over the control socket has at most 256 KiB.
const KEYS_MAX: usize = 500;

/// The table, or why there is none.
pub(super) fn list(gateway: &Gateway, caller: Option<&str>) -> Result<String, String> {
    let caller = caller.map(CallerName::parse).transpose();
    let caller = caller.map_err(|error| format!("this is not a name of a caller: {error}"))?;
    let Some((keys, more)) = gateway.keys(caller.as_ref(), KEYS_MAX) else {
        let name = caller.map_or_else(String::new, |caller| caller.to_string());
        return Err(format!("the settings in force have no caller {name}"));
    };
    if keys.is_empty() {
        return Ok("no keys".to_owned());
    }
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(["caller", "key", "state", "last use"]);
    for key in &keys {
        table.add_row([
            key.caller.to_string(),
            key.label.to_string(),
            key.state(),
            key.last_use(),
        ]);
    }
    Ok(match (more, caller) {
        (0, _) => table.to_string(),
        (more, None) => format!("{table}\nand {more} more; name a caller with --caller"),
        (more, Some(_)) => format!("{table}\nand {more} more"),
    })
}
