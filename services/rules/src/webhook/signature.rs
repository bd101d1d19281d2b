//! The signature of a webhook, as Standard Webhooks describes it: HMAC-SHA256 over id, time and body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// In front of a key in base64.
const PREFIX: &str = "whsec_";

/// The value of `webhook-signature`. `key`: `whsec_` and base64, or the bytes themselves; `seconds` since the Unix epoch.
pub fn sign(key: &str, id: &str, seconds: u64, body: &[u8]) -> Result<String, String> {
    let key = match key.strip_prefix(PREFIX) {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| "key behind whsec_ is not base64".to_owned())?,
        None => key.as_bytes().to_vec(),
    };
    if key.is_empty() {
        return Err("key is empty".to_owned());
    }
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key));
    context.update(format!("{id}.{seconds}.").as_bytes());
    context.update(body);
    Ok(format!("v1,{}", STANDARD.encode(context.sign().as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn it_is_what_the_specification_has_as_its_example() {
        let (key, id) = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek");
        let signed = sign(key, id, 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, Ok("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".to_owned()));
        assert!(sign("whsec_%", id, 0, b"").is_err());
        assert!(sign("", id, 0, b"").is_err());
    }
}
