//! Files of the console, compiled in. Their address holds a version made of their content: it may be kept for ever.

use std::hash::{DefaultHasher, Hasher};
use std::sync::LazyLock;

use axum::extract::{Path, Request};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use drover_host::http::Failure;

const JS: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const FOR_EVER: &str = "public, max-age=31536000, immutable";

macro_rules! files {
    ($($name:literal: $kind:ident),+ $(,)?) => {
        /// Name, content type and content of every file.
        const FILES: &[(&str, &str, &str)] =
            &[$(($name, $kind, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/", $name)))),+];
    };
}

files! {
    "console.css": CSS,
    "drover.js": JS,
    "page.js": JS,
    "open.js": JS,
    "devices.js": JS,
    "device.js": JS,
    "curve.js": JS,
    "live.js": JS,
    "connect.js": JS,
    "icon.svg": SVG,
    "uplot/uPlot.iife.min.js": JS,
    "uplot/uPlot.min.css": CSS,
}

/// Changes when a file does.
pub static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    FILES.iter().for_each(|(_, _, content)| hasher.write(content.as_bytes()));
    format!("{:016x}", hasher.finish())
});

pub async fn get(Path((version, name)): Path<(String, String)>, request: Request) -> Response {
    let found = FILES.iter().find(|(file, _, _)| version == *VERSION && *file == name);
    match found {
        Some((_, kind, content)) => ([(CONTENT_TYPE, *kind), (CACHE_CONTROL, FOR_EVER)], *content).into_response(),
        None => Failure::nothing_at(request.uri()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_fetched_from_elsewhere_and_the_whole_is_small() {
        let own = FILES.iter().filter(|(name, _, _)| !name.starts_with("uplot/"));
        for (name, _, content) in own {
            let foreign = content.replace("http://www.w3.org/2000/svg", "");
            assert!(!foreign.contains("http://") && !foreign.contains("https://"), "{name}");
        }
        let bytes: usize = FILES.iter().map(|(_, _, content)| content.len()).sum();
        assert!(bytes < 150 * 1024, "{bytes} bytes");
    }
}
