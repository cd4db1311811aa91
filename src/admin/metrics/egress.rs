//! The pools of egress proxies in the metrics; nothing where none is configured. As many series as a pool has members.

use std::{fmt::Error, sync::Arc};

use super::{family::Out, flag, float, word};
use crate::egress::{PoolSnapshot, Pools, ProxySnapshot, Standing};

pub(super) fn encode(pools: &Pools, out: &mut Out<'_>) -> Result<(), Error> {
    let pools: Vec<PoolSnapshot> = pools.iter().map(|pool| pool.snapshot()).collect();
    if pools.is_empty() {
        return Ok(());
    }
    states(&pools, out)?;
    let mut family = out.gauge("standin_egress_sessions", "Sessions that go on")?;
    for pool in &pools {
        family.gauge(&[("pool", &pool.name)], float(pool.sessions))?;
    }
    let mut family =
        out.gauge("standin_egress_list_taken", "1 while the list that is followed is taken")?;
    for (pool, source) in pools.iter().filter_map(|pool| Some((pool, pool.source.as_ref()?))) {
        family.gauge(&[("pool", &pool.name)], flag(source.fault.is_none()))?;
    }
    members(&pools, out)
}

fn states(pools: &[PoolSnapshot], out: &mut Out<'_>) -> Result<(), Error> {
    let mut family = out.gauge("standin_egress_proxies", "Egress proxies by state")?;
    for pool in pools {
        for state in [Standing::Active, Standing::Draining, Standing::Cooling, Standing::Retired] {
            let n = pool.proxies.iter().filter(|proxy| proxy.standing == state).count();
            family.gauge(&[("pool", &pool.name), ("state", &word(&state))], float(n as u64))?;
        }
    }
    Ok(())
}

fn members(pools: &[PoolSnapshot], out: &mut Out<'_>) -> Result<(), Error> {
    let of = |pool: &PoolSnapshot| {
        let members = pool.proxies.iter().filter(|proxy| proxy.origin.is_some());
        members.cloned().map(|proxy| (Arc::clone(&pool.name), proxy)).collect::<Vec<_>>()
    };
    let members: Vec<_> = pools.iter().flat_map(of).collect();
    let counts: [(&str, &str, fn(&ProxySnapshot) -> u64); 3] = [
        ("standin_egress_requests", "Requests given to an egress proxy", |proxy| proxy.requests),
        ("standin_egress_failures", "Times an egress proxy itself failed", |proxy| proxy.failed),
        ("standin_egress_blocked", "Answers by which the far side blocks it", |proxy| {
            proxy.blocked
        }),
    ];
    for (name, help, read) in counts {
        let mut family = out.counter(name, help)?;
        for (pool, proxy) in &members {
            family.counter(&[("pool", pool), ("proxy", &proxy.name)], read(proxy))?;
        }
    }
    let mut family = out.gauge("standin_egress_in_flight", "Requests in flight through it")?;
    for (pool, proxy) in &members {
        family.gauge(&[("pool", pool), ("proxy", &proxy.name)], float(proxy.in_flight))?;
    }
    Ok(())
}
