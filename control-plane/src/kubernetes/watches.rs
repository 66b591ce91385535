//! Follows the API: lists, watches, and lists again when a watch is lost.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    core::{DynamicObject, PartialObjectMeta},
    runtime::watcher::{self, Config, Event, watcher},
};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::{
    cache::{Cache, Told, map},
    kinds::{self, Watched, written},
    live::Live,
    others,
    writer::in_words,
};
use crate::istio::DesiredKind;

/// First and longest pause before an API that fails is asked again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A kind that had objects counts as gone when the API has said so this often.
const GONE: u32 = 3;

/// Objects of a list that are told at a time. As they come they are large, and little is kept of them.
const PAGE: u32 = 100;

/// Watches everything that we read.
pub(super) fn read(client: &Client, cache: &Arc<Cache>, tasks: &mut JoinSet<()>) {
    for watched in Watched::ALL {
        let cache = cache.clone();
        if watched == Watched::Pod {
            let pods = watcher(Api::<PartialObjectMeta<Pod>>::all(client.clone()), config());
            let pods = pods.map(|event| event.map(|event| map(event, |pod| pod.metadata)));
            tasks.spawn(follow("Pod", false, pods, move |news| match news {
                News::Event(event) => cache.take_pod(event),
                News::Absent(_) => {}
            }));
            continue;
        }
        let api = Api::<DynamicObject>::all_with(client.clone(), &watched.resource());
        let objects = watcher(api, config());
        let objects = objects.map(|event| event.map(|event| map(event, told)));
        tasks.spawn(follow(watched.display(), !watched.is_built_in(), objects, move |news| match news {
            News::Event(event) => cache.take(watched, event),
            News::Absent(times) if times >= GONE || cache.is_empty(watched) => cache.absent(watched),
            News::Absent(_) => {}
        }));
    }
    for resource in others::resources() {
        let cache = cache.clone();
        let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
        let objects = watcher(api, config().labels(&kinds::not_ours()));
        tasks.spawn(follow(format!("other {}s", resource.kind), true, objects, move |news| match news {
            News::Event(event) => cache.take_other(&resource, Some(event)),
            News::Absent(_) => cache.take_other(&resource, None),
        }));
    }
}

/// Watches everything that we write.
pub(super) fn write(client: &Client, live: &Arc<Live>, tasks: &mut JoinSet<()>) {
    for kind in [DesiredKind::EnvoyFilter, DesiredKind::VirtualService] {
        let live = live.clone();
        let api = Api::<DynamicObject>::all_with(client.clone(), &written(kind));
        let config = config().labels(&kinds::ours());
        let name = if kind == DesiredKind::EnvoyFilter { "EnvoyFilter" } else { "VirtualService" };
        tasks.spawn(follow(name, true, watcher(api, config), move |news| match news {
            News::Event(event) => live.take(kind, event),
            News::Absent(_) => live.absent(kind),
        }));
    }
}

fn config() -> Config {
    Config::default().page_size(PAGE)
}

/// What a watch says.
enum News<K> {
    Event(Event<K>),
    /// The kind is not installed, said this often in a row.
    Absent(u32),
}

async fn follow<K: Debug>(
    name: impl std::fmt::Display,
    may_be_absent: bool,
    stream: impl futures_util::Stream<Item = watcher::Result<Event<K>>>,
    tell: impl Fn(News<K>),
) {
    let mut stream = Box::pin(stream);
    let (mut pause, mut absent, mut failing) = (PAUSE.0, 0_u32, false);
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                // The beginning of a list says nothing about whether it can be had.
                if !matches!(event, Event::Init) {
                    if failing || absent > 0 {
                        info!("{name}: the watch works again");
                    }
                    (pause, absent, failing) = (PAUSE.0, 0, false);
                }
                tell(News::Event(event));
            }
            Err(error) => {
                if may_be_absent && is_absent(&error) {
                    absent = absent.saturating_add(1);
                    if absent == 1 {
                        info!("{name}: this kind is not installed in the cluster; looking for it again");
                    }
                    tell(News::Absent(absent));
                } else if std::mem::replace(&mut failing, true) {
                    debug!("{name}: {}", words(&error));
                } else {
                    warn!("{name}: the watch is lost, trying again: {}", words(&error));
                }
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(PAUSE.1);
            }
        }
    }
}

fn is_absent(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

fn words(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => in_words(error),
        error => error.to_string(),
    }
}

fn told(object: DynamicObject) -> Told {
    Told { metadata: object.metadata, data: object.data }
}
