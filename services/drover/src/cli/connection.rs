//! Which platform a command talks to, as whom, about which tenant; the same flags everywhere.

use std::path::PathBuf;

use clap::Args;
use drover_types::{DEFAULT_TENANT, api_token_tenant};

use super::client::{Client, ClientError};
use super::output::Format;

/// The environment variable with the token itself.
pub const TOKEN_VARIABLE: &str = "DROVER_TOKEN";

/// Where the platform is, and in which file the token.
pub const SERVER_VARIABLE: &str = "DROVER_SERVER";
pub const TOKEN_FILE_VARIABLE: &str = "DROVER_TOKEN_FILE";
/// Without either: `drover up` as it starts without flags, seen from the directory it was started in.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";
pub const DEFAULT_TOKEN_FILE: &str = "drover-data/admin.token";

/// Flags that every command of the client takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// Address of the platform
    #[arg(long, global = true, env = SERVER_VARIABLE, default_value = DEFAULT_SERVER, value_name = "URL")]
    pub server: String,
    /// File with the administrator's or an API token; DROVER_TOKEN, the token itself, goes first
    #[arg(long, global = true, env = TOKEN_FILE_VARIABLE, default_value = DEFAULT_TOKEN_FILE, value_name = "FILE")]
    pub token_file: PathBuf,
    /// The tenant; without it that of the API token, or `default`
    #[arg(short = 'n', long, global = true)]
    pub tenant: Option<String>,
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

impl Connection {
    /// A client with the token found.
    pub fn open(&self) -> Result<Client, ClientError> {
        let token = match std::env::var(TOKEN_VARIABLE) {
            Ok(token) => token,
            Err(_) => std::fs::read_to_string(&self.token_file)
                .map_err(|reason| ClientError::Token { file: self.token_file.clone(), reason })?,
        };
        let token = token.trim();
        Client::new(&self.server, token, self.tenant.as_deref().unwrap_or_else(|| tenant_of(token)))
    }
}

/// The tenant that a token is good for: an API token, `drt_TENANT.NAME.SECRET`, names it; the administrator's does not.
fn tenant_of(token: &str) -> &str {
    api_token_tenant(token).map_or(DEFAULT_TENANT, |(tenant, _)| tenant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_token_names_its_tenant() {
        let cases = [
            ("drt_home.ci.s3cret", "home"),
            ("drt_home.a.b.s3cret", "home"),
            ("0123abcd.x", "default"),
            ("", "default"),
        ];
        for (token, tenant) in cases {
            assert_eq!(tenant_of(token), tenant, "{token}");
        }
    }
}
