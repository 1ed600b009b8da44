//! Temporal's Web UI, where operators see the flows.

use crate::settings::TemporalSettings;

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebUi {
    url: String,
    namespace: String,
}

impl WebUi {
    /// The Web UI at `url`, of a namespace.
    pub fn new(url: &str, namespace: &str) -> Self {
        Self {
            url: url.trim_end_matches('/').to_owned(),
            namespace: namespace.to_owned(),
        }
    }

    /// The one of the configuration, if there is one.
    pub fn of(settings: &TemporalSettings) -> Option<Self> {
        let url = settings.ui_url.as_deref()?;
        Some(Self::new(url, &settings.namespace))
    }

    /// The address of a workflow.
    pub fn workflow(&self, workflow_id: &str) -> String {
        let Self { url, namespace } = self;
        let id = in_address(workflow_id);
        format!("{url}/namespaces/{namespace}/workflows/{id}")
    }
}

/// A text as one segment of an address.
fn in_address(text: &str) -> String {
    text.bytes().fold(String::new(), |address, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            address + char::from(byte).encode_utf8(&mut [0])
        } else {
            address + &format!("%{byte:02X}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workflow_id_is_one_segment_of_an_address() {
        let web_ui = WebUi::new("http://ui.example/", "meed");
        assert_eq!(
            web_ui.workflow("award/a-b._~9/0?#% ü"),
            "http://ui.example/namespaces/meed/workflows/award%2Fa-b._~9%2F0%3F%23%25%20%C3%BC"
        );
    }
}
