//! Discovery of one type on a stream of its own: what Envoy asks of a configuration source that is not ADS. The messages
//! are those of ADS, and so is what is done with them.

use envoy_types::pb::envoy::service::{
    discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse},
    extension::v3::extension_config_discovery_service_server::ExtensionConfigDiscoveryService,
    route::v3::route_discovery_service_server::RouteDiscoveryService,
};
use tonic::{Request, Response, Status, Streaming};

use super::{Responses, Server, delta::Delta, sotw::Sotw};

/// Sidecars hold a stream; nobody needs to poll.
fn no_polling() -> Status {
    Status::unimplemented("there are streams for this")
}

#[tonic::async_trait]
impl RouteDiscoveryService for Server {
    type StreamRoutesStream = Responses<DiscoveryResponse>;
    type DeltaRoutesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_routes(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamRoutesStream>, Status> {
        Ok(self.run::<Sotw>(request.into_inner()))
    }

    async fn delta_routes(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaRoutesStream>, Status> {
        Ok(self.run::<Delta>(request.into_inner()))
    }

    async fn fetch_routes(&self, _: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        Err(no_polling())
    }
}

#[tonic::async_trait]
impl ExtensionConfigDiscoveryService for Server {
    type StreamExtensionConfigsStream = Responses<DiscoveryResponse>;
    type DeltaExtensionConfigsStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_extension_configs(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamExtensionConfigsStream>, Status> {
        Ok(self.run::<Sotw>(request.into_inner()))
    }

    async fn delta_extension_configs(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaExtensionConfigsStream>, Status> {
        Ok(self.run::<Delta>(request.into_inner()))
    }

    async fn fetch_extension_configs(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(no_polling())
    }
}
