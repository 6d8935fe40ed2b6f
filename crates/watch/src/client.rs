//! One DNS client for one set of name servers. A server that does not understand EDNS is asked again without it
//! (RFC 6891 section 6.2.2): such servers are found in appliances and answer every query with FORMERR.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};

/// Asks name servers, with EDNS first.
#[derive(Clone, Debug)]
pub(crate) struct DnsClient {
    usual: TokioResolver,
    without_edns: TokioResolver,
}

impl DnsClient {
    /// A client of these servers.
    pub(crate) fn new(config: &ResolverConfig, options: &ResolverOpts) -> Result<Self, String> {
        let build = |edns0: bool| {
            let mut builder =
                TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default());
            let mut options = options.clone();
            (options.edns0, options.use_hosts_file) = (edns0, ResolveHosts::Never);
            *builder.options_mut() = options;
            builder.build().map_err(|error| error.to_string())
        };
        Ok(Self { usual: build(options.edns0)?, without_edns: build(false)? })
    }

    /// The records of a name.
    pub(crate) async fn records(&self, name: Name, kind: RecordType) -> Result<Lookup, NetError> {
        match self.usual.lookup(name.clone(), kind).await {
            Err(error) if is_about_edns(&error) => self.without_edns.lookup(name, kind).await,
            result => result,
        }
    }
}

/// Whether the server may have failed for the EDNS record in the query.
#[expect(clippy::wildcard_enum_match_arm, reason = "the other errors are not a server's word")]
fn is_about_edns(error: &NetError) -> bool {
    let code = match error {
        NetError::Dns(DnsError::ResponseCode(code)) => *code,
        NetError::Dns(DnsError::NoRecordsFound(none)) => none.response_code,
        _ => return false,
    };
    matches!(code, ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS)
}
