//! HTTP connection managers.

use std::time::Duration;

use envoy_types::pb::envoy::{
    config::{
        accesslog::v3::AccessLog,
        core::v3::{
            Http2ProtocolOptions, HttpProtocolOptions,
            http_protocol_options::HeadersWithUnderscoresAction,
        },
        listener::v3::{Filter, filter},
        route::v3::RouteConfiguration,
    },
    extensions::filters::{
        http::router::v3::Router,
        network::http_connection_manager::v3::{
            HttpConnectionManager, HttpFilter, Rds,
            http_connection_manager::{
                ForwardClientCertDetails, InternalAddressConfig, PathWithEscapedSlashesAction,
                RouteSpecifier, ServerHeaderTransformation, SetCurrentClientCertDetails, Tracing,
                UpgradeConfig,
            },
            http_filter,
        },
    },
};

use super::{
    message::{any, duration, from_ads, no, number, seconds, yes},
    names,
};
use crate::{
    mesh::{MeshConfig, PathNormalization},
    plan::TableName,
};

/// Where requests come from, which decides what of them is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// The application in the same pod.
    Application,
    /// Workloads that have shown a certificate: the application learns whose.
    Mesh,
    /// Anybody inside the cluster, in plaintext.
    Cluster,
    /// Anybody outside.
    World,
}

#[derive(Clone, Debug)]
pub enum Routes<'a> {
    Discovered(&'a TableName),
    Inline(Box<RouteConfiguration>),
}

/// Who is told of requests.
#[derive(Clone, Debug)]
pub struct Observed {
    pub logs: Vec<AccessLog>,
    pub tracing: Option<Tracing>,
}

pub fn filter(
    stat_prefix: String,
    routes: Routes<'_>,
    clients: Clients,
    observed: Observed,
    config: &MeshConfig,
) -> Filter {
    let mut manager = HttpConnectionManager {
        stat_prefix,
        http_filters: vec![router()],
        access_log: observed.logs,
        tracing: observed.tracing,
        use_remote_address: no(),
        generate_request_id: yes(),
        // Nobody's x-envoy-… headers may steer the proxy: applications' cannot be told from those
        // that they pass on from strangers.
        internal_address_config: Some(InternalAddressConfig::default()),
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..UpgradeConfig::default()
        }],
        // A stream may be silent for as long as its two ends like; they have their own timeouts.
        stream_idle_timeout: seconds(0),
        server_header_transformation: ServerHeaderTransformation::PassThrough.into(),
        forward_client_cert_details: ForwardClientCertDetails::Sanitize.into(),
        route_specifier: Some(route_specifier(routes)),
        ..HttpConnectionManager::default()
    };
    normalize_paths(&mut manager, config.paths);
    match clients {
        Clients::Application | Clients::Cluster => {}
        Clients::Mesh => {
            manager.forward_client_cert_details = ForwardClientCertDetails::SanitizeSet.into();
            manager.set_current_client_cert_details =
                Some(SetCurrentClientCertDetails { uri: true, ..Default::default() });
        }
        Clients::World => harden(&mut manager),
    }
    Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(any(&manager))),
    }
}

fn normalize_paths(manager: &mut HttpConnectionManager, how: PathNormalization) {
    if how == PathNormalization::None {
        manager.normalize_path = no();
        return;
    }
    manager.normalize_path = yes();
    manager.merge_slashes = how != PathNormalization::Base;
    if how == PathNormalization::DecodeAndMergeSlashes {
        manager.path_with_escaped_slashes_action =
            PathWithEscapedSlashesAction::UnescapeAndForward.into();
    }
}

/// What Envoy's documentation asks of proxies that strangers reach.
fn harden(manager: &mut HttpConnectionManager) {
    manager.use_remote_address = yes();
    "meshwright".clone_into(&mut manager.server_name);
    manager.server_header_transformation = ServerHeaderTransformation::AppendIfAbsent.into();
    manager.forward_client_cert_details = ForwardClientCertDetails::SanitizeSet.into();
    manager.common_http_protocol_options = Some(HttpProtocolOptions {
        idle_timeout: duration(Duration::from_hours(1)),
        // `x_user` and `x-user` are the same to many an application, and not to what checks them.
        headers_with_underscores_action: HeadersWithUnderscoresAction::DropHeader.into(),
        ..HttpProtocolOptions::default()
    });
    manager.http2_protocol_options = Some(Http2ProtocolOptions {
        max_concurrent_streams: number(100),
        initial_stream_window_size: number(64 * 1024),
        initial_connection_window_size: number(1024 * 1024),
        ..Http2ProtocolOptions::default()
    });
    manager.request_headers_timeout = seconds(10);
    // Long enough for quiet websockets and gRPC watches, short enough that what clients abandon
    // does not pile up. There is no limit on a whole request: uploads and streams may last.
    manager.stream_idle_timeout = seconds(3600);
}

fn route_specifier(routes: Routes<'_>) -> RouteSpecifier {
    match routes {
        Routes::Inline(config) => RouteSpecifier::RouteConfig(*config),
        Routes::Discovered(name) => RouteSpecifier::Rds(Rds {
            config_source: Some(from_ads()),
            route_config_name: names::table(name),
        }),
    }
}

fn router() -> HttpFilter {
    HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(&Router::default()))),
        ..HttpFilter::default()
    }
}
