//! What a certificate says of its holder.

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What the alternative name of a node's certificate begins with.
const NODE_URI: &str = "ringfort://node/";

/// The alternative name that the certificate of the node with this name has.
pub fn node_uri(name: &str) -> String {
    format!("{NODE_URI}{name}")
}

/// Who has shown a certificate that is verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certified {
    /// The user's name: the subject's common name. None in a node's certificate.
    pub user: Option<String>,
    /// The node's name.
    pub node: Option<String>,
}

impl Certified {
    /// Of this certificate in DER. Nobody, if it can't be read.
    pub fn of(der: &[u8]) -> Certified {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Certified::default() };
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let node = names.filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(NODE_URI),
            _ => None,
        });
        let mut nodes = node.map(str::to_owned);
        let node = nodes.next();
        if node.is_some() {
            // One that speaks for several speaks for none.
            return Certified { user: None, node: node.filter(|_| nodes.next().is_none()) };
        }
        let mut common =
            certificate.subject().iter_common_name().map(x509_parser::x509::AttributeTypeAndValue::as_str);
        // With several it is not plain who is meant.
        let user = match (common.next(), common.next()) {
            (Some(Ok(name)), None) if !name.is_empty() => Some(name.to_owned()),
            _ => None,
        };
        Certified { user, node: None }
    }
}

/// When a certificate in DER ends, in seconds since 1970.
pub(crate) fn ends(der: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(common: &[&str], uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in common {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_is_a_users_or_a_nodes_and_never_both() {
        let user = |name: &str| Certified { user: Some(name.to_owned()), node: None };
        let node = |name: &str| Certified { user: None, node: Some(name.to_owned()) };
        assert_eq!(Certified::of(&certificate(&["alice"], &[])), user("alice"));
        assert_eq!(Certified::of(&certificate(&["alice"], &["https://node/alice"])), user("alice"));
        assert_eq!(Certified::of(&certificate(&["alice"], &["ringfort://node/n1"])), node("n1"));
        assert_eq!(Certified::of(&certificate(&[], &["ringfort://node/n1"])), node("n1"));
        let two = ["ringfort://node/n1", "ringfort://node/n2"];
        for (common, uris) in [(vec![], vec![]), (vec![""], vec![]), (vec!["alice"], two.to_vec())] {
            assert_eq!(Certified::of(&certificate(&common, &uris)), Certified::default());
        }
        assert_eq!(Certified::of(b"no certificate"), Certified::default());
    }
}
