//! The report as a response without end, for the operator alone: names of pods and what their proxies
//! refuse are nobody else's business.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State as Shared},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};

use super::{
    Reporter,
    line::{HEARTBEAT_SECONDS, Line, PATH},
};
use crate::{
    ca::{Authenticate, Refused, bearer},
    control_plane::Fleet,
    identity::SpiffeId,
};

/// How often members are looked at while somebody listens.
const INTERVAL: Duration = Duration::from_secs(1);
const HEARTBEAT: Duration = Duration::from_secs(HEARTBEAT_SECONDS);
/// Lines of one piece of the response.
const PIECE: usize = 2000;
/// One operator leads; another may have taken over, and an old connection not be noticed yet.
const LISTENERS: usize = 8;
/// The listener comes back with a fresh token: one that was taken away is not good for ever.
const LONGEST: Duration = Duration::from_hours(1);

struct Reports {
    fleet: Fleet,
    callers: Box<dyn Authenticate>,
    operator: SpiffeId,
    free: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

/// The route, to be served over TLS only: `operator` alone may listen. Ends when `stopped` says so.
pub fn router(
    fleet: Fleet,
    callers: impl Authenticate,
    operator: SpiffeId,
    stopped: watch::Receiver<bool>,
) -> Router {
    let (callers, free) = (Box::new(callers), Arc::new(Semaphore::new(LISTENERS)));
    let reports = Reports { fleet, callers, operator, free, stopped };
    Router::new().route(PATH, get(listen)).with_state(Arc::new(reports))
}

async fn listen(Shared(reports): Shared<Arc<Reports>>, request: Request) -> Response {
    if let Err((status, sentence)) = admit(&reports, request.headers()).await {
        tracing::warn!(%status, sentence, "refused to report the proxies");
        return (status, sentence + "\n").into_response();
    }
    let Ok(permit) = reports.free.clone().try_acquire_owned() else {
        let sentence = "as many listen already as can be served: try again later\n";
        return (StatusCode::SERVICE_UNAVAILABLE, sentence).into_response();
    };
    tracing::info!("reporting the proxies to the operator");
    let listener = Listener {
        fleet: reports.fleet.clone(),
        reporter: Reporter::default(),
        stopped: reports.stopped.clone(),
        phase: Phase::Hello,
        opened: Instant::now(),
        told: Instant::now(),
        _permit: permit,
    };
    let pieces = futures::stream::unfold(listener, |mut listener| async move {
        let piece = listener.next().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), listener))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let json_lines = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, json_lines);
    response
}

/// Only a token says who calls: certificates are for every workload of the mesh.
async fn admit(reports: &Reports, headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
    let header = headers.get(header::AUTHORIZATION).and_then(|header| header.to_str().ok());
    let Some(token) = header.and_then(bearer) else {
        let sentence = "a bearer token of the operator's service account is needed";
        return Err((StatusCode::UNAUTHORIZED, sentence.to_owned()));
    };
    let caller = reports.callers.authenticate(token).await.map_err(|refused| {
        let status = match refused {
            Refused::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Refused::NotAServiceAccount(_) => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        };
        (status, refused.to_string())
    })?;
    if caller == reports.operator {
        return Ok(());
    }
    let sentence = format!("{caller} may not listen, only {} may", reports.operator);
    Err((StatusCode::FORBIDDEN, sentence))
}

struct Listener {
    fleet: Fleet,
    reporter: Reporter,
    stopped: watch::Receiver<bool>,
    phase: Phase,
    opened: Instant,
    /// When something was said last.
    told: Instant,
    _permit: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Hello,
    /// Proxies that were there at the beginning are left to be told of.
    Beginning,
    Following,
}

impl Listener {
    /// `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.phase == Phase::Following {
                tokio::select! {
                    () = tokio::time::sleep(INTERVAL) => {}
                    _ = self.stopped.wait_for(|stopped| *stopped) => return None,
                }
                if self.opened.elapsed() >= LONGEST {
                    return None;
                }
            }
            let piece = self.piece().inspect_err(|error| {
                tracing::error!(%error, "a report cannot be written");
            });
            let piece = piece.ok()?;
            if !piece.is_empty() {
                self.told = Instant::now();
                return Some(piece.into());
            }
        }
    }

    fn piece(&mut self) -> serde_json::Result<Vec<u8>> {
        let mut piece = Vec::new();
        if self.phase == Phase::Hello {
            self.phase = Phase::Beginning;
            let version = env!("CARGO_PKG_VERSION").to_owned();
            Line::Hello { version }.write(&mut piece)?;
        }
        let reporter = &mut self.reporter;
        let now = Instant::now().into_std();
        let reports = self.fleet.with_members(|members| reporter.changes(members, now, PIECE));
        let all = reports.len() < PIECE;
        for report in reports {
            Line::Proxy(report).write(&mut piece)?;
        }
        if all && self.phase == Phase::Beginning {
            self.phase = Phase::Following;
            Line::Synced.write(&mut piece)?;
        }
        if piece.is_empty() && self.told.elapsed() >= HEARTBEAT {
            Line::Heartbeat.write(&mut piece)?;
        }
        Ok(piece)
    }
}
