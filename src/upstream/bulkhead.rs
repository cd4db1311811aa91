//! Bulkheads: how many requests of a route, or of an upstream, may be in flight at once, over all workers.
//!
//! Nobody waits for a place. Where no limit is configured, nothing is counted and nothing shared is written.

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::UpstreamError;

/// One limit, shared by all workers.
#[derive(Debug)]
pub struct Bulkhead {
    of: Of,
    limit: usize,
    count: Arc<Count>,
}

/// What a limit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Route,
    Upstream,
}

#[derive(Debug, Default)]
struct Count {
    inside: AtomicUsize,
    refused: AtomicU64,
}

/// What one request holds while it is in flight: of its route and of its upstream, where they have a limit.
#[derive(Debug, Default)]
pub struct Places {
    _route: Option<Place>,
    _upstream: Option<Place>,
}

#[derive(Debug)]
struct Place(Arc<Count>);

impl Bulkhead {
    /// None without a limit. Who is inside of the one `before` a reload still counts.
    pub fn new(of: Of, limit: Option<NonZeroUsize>, before: Option<&Self>) -> Option<Self> {
        let count = before.map_or_else(Arc::default, |before| Arc::clone(&before.count));
        limit.map(|limit| Self { of, limit: limit.get(), count })
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Requests in flight now.
    pub fn inside(&self) -> usize {
        self.count.inside.load(Ordering::Relaxed)
    }

    /// Requests that found no place, since start.
    pub fn refused(&self) -> u64 {
        self.count.refused.load(Ordering::Relaxed)
    }

    fn enter(&self) -> Result<Place, UpstreamError> {
        let one_more = |inside| (inside < self.limit).then_some(inside + 1);
        match self.count.inside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Place(Arc::clone(&self.count))),
            Err(_) => {
                self.count.refused.fetch_add(1, Ordering::Relaxed);
                Err(UpstreamError::Full { limit: self.limit, of: self.of })
            }
        }
    }
}

impl Places {
    /// A place in each, or in none.
    pub fn enter(
        route: Option<&Bulkhead>,
        upstream: Option<&Bulkhead>,
    ) -> Result<Self, UpstreamError> {
        let route = route.map(Bulkhead::enter).transpose()?;
        let upstream = upstream.map(Bulkhead::enter).transpose()?;
        Ok(Self { _route: route, _upstream: upstream })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Route => "route",
            Self::Upstream => "upstream",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulkhead(of: Of, limit: usize) -> Bulkhead {
        Bulkhead::new(of, NonZeroUsize::new(limit), None).unwrap()
    }

    #[test]
    fn no_more_than_the_limit_are_inside_at_once_whoever_comes_and_goes() {
        let bulkhead = bulkhead(Of::Route, 3);
        let most = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        if let Ok(place) = Places::enter(Some(&bulkhead), None) {
                            most.fetch_max(bulkhead.inside(), Ordering::Relaxed);
                            drop(place);
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
        assert_eq!(bulkhead.inside(), 0);
    }

    #[test]
    fn what_finds_no_place_at_its_upstream_gives_that_of_its_route_back() {
        let (route, upstream) = (bulkhead(Of::Route, 2), bulkhead(Of::Upstream, 1));
        let first = Places::enter(Some(&route), Some(&upstream)).unwrap();
        let refused = Places::enter(Some(&route), Some(&upstream)).unwrap_err();
        assert_eq!(refused.to_string(), "1 requests of this upstream are in flight");
        assert_eq!((route.inside(), upstream.inside(), upstream.refused()), (1, 1, 1));
        drop(first);
        assert!(Places::enter(Some(&route), Some(&upstream)).is_ok());
    }

    #[test]
    fn over_a_reload_those_inside_still_count() {
        let before = bulkhead(Of::Route, 1);
        let _inside = Places::enter(Some(&before), None).unwrap();
        let after = Bulkhead::new(Of::Route, NonZeroUsize::new(2), Some(&before)).unwrap();
        let second = Places::enter(Some(&after), None).unwrap();
        assert!(Places::enter(Some(&after), None).is_err());
        drop(second);
        assert_eq!(before.inside(), 1);
    }
}
