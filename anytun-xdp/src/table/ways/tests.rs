use super::*;
use crate::config::Prefix;

const MAIN: u32 = 254;
const ETH0: u32 = 2;
const ETH1: u32 = 3;
/// Not one of the node's.
const WLAN0: u32 = 9;

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

fn address(text: &str) -> [u8; 16] {
    octets(text.parse().expect("an address"))
}

fn rule(priority: u32, family: Family, action: Action) -> Rule {
    Rule { priority, family, from: None, to: None, more: false, action }
}

/// The rules of every host (ip-rule(8)).
fn standard() -> Vec<Rule> {
    let rules = |family| [(0, 255), (32766, MAIN), (32767, 253)].map(|(p, t)| rule(p, family, Action::Table(t, None)));
    [rules(Family::V4), rules(Family::V6)].concat()
}

fn hop(ifindex: u32, gateway: Option<&str>, weight: u32) -> Hop {
    Hop { ifindex, gateway: gateway.map(address), weight }
}

fn route(table: u32, to: &str, metric: u32, fate: Fate) -> Route {
    Route { table, prefix: prefix(to), metric, fate, mtu: 0 }
}

fn through(to: &str, ifindex: u32, gateway: Option<&str>) -> Route {
    route(MAIN, to, 0, Fate::Hops(vec![hop(ifindex, gateway, 1)]))
}

/// Neighbours have the last octet of their address as the last one of their Ethernet address.
fn ways(rules: Vec<Rule>, routes: Vec<Route>, neighbours: &[(u32, &str)]) -> Ways {
    let exit = |slot: u8| Exit { slot, mac: [2, 0, 0, 0, 0, slot], tags: Tags::default(), mtu: 1500 };
    let neighbour = |(ifindex, at): &(u32, &str)| {
        let next = Next { ifindex: *ifindex, address: address(at) };
        (next, Neighbour::new([2, 0, 0, 0, 1, next.address[15]]))
    };
    Ways {
        routes: Arc::new(Routes::new(rules, routes)),
        exits: Arc::new([(ETH0, exit(0)), (ETH1, exit(1))].into_iter().collect()),
        neighbours: Arc::new(neighbours.iter().map(neighbour).collect()),
    }
}

fn find(ways: &Ways, to: &str) -> Result<(u8, u8), Wayless> {
    let from = if to.contains(':') { "fd00::1" } else { "10.9.0.11" };
    ways.find(&address(to), &address(from), 0).map(|way| (way.slot, way.link.as_bytes()[5]))
}

#[test]
fn the_longest_prefix_leads_and_the_next_hop_is_the_gateway_or_the_destination() {
    let routes = vec![
        through("0.0.0.0/0", ETH0, Some("198.51.100.1")),
        through("203.0.113.0/24", ETH1, None),
        through("203.0.113.128/25", ETH1, Some("203.0.113.7")),
        through("::/0", ETH1, Some("fe80::9")),
    ];
    let neighbours = [(ETH0, "198.51.100.1"), (ETH1, "203.0.113.5"), (ETH1, "203.0.113.7"), (ETH1, "fe80::9")];
    let ways = ways(standard(), routes, &neighbours);
    assert_eq!(find(&ways, "192.0.2.1"), Ok((0, 1)));
    assert_eq!(find(&ways, "203.0.113.5"), Ok((1, 5)));
    assert_eq!(find(&ways, "203.0.113.200"), Ok((1, 7)));
    assert_eq!(find(&ways, "2001:db8::1"), Ok((1, 9)));
    let missing = Next { ifindex: ETH1, address: address("203.0.113.6") };
    assert_eq!(find(&ways, "203.0.113.6"), Err(Wayless::Neighbour(missing)));
}

#[test]
fn an_ipv4_route_may_lead_through_an_ipv6_gateway() {
    let ways = ways(standard(), vec![through("0.0.0.0/0", ETH0, Some("fe80::3"))], &[(ETH0, "fe80::3")]);
    assert_eq!(find(&ways, "192.0.2.1"), Ok((0, 3)));
}

#[test]
fn without_a_route_or_with_one_that_ends_there_is_no_way() {
    let end = |to, wayless| route(MAIN, to, 0, Fate::End(wayless));
    let routes = vec![
        end("10.1.0.0/16", Wayless::Blackhole),
        end("10.2.0.0/16", Wayless::Prohibited),
        route(255, "203.0.113.254/32", 0, Fate::End(Wayless::Kernel)),
        through("203.0.113.0/24", ETH1, None),
        through("10.3.0.0/16", WLAN0, None),
    ];
    let ways = ways(standard(), routes, &[(ETH1, "203.0.113.254")]);
    assert_eq!(find(&ways, "192.0.2.1"), Err(Wayless::Unreachable));
    assert_eq!(find(&ways, "10.1.2.3"), Err(Wayless::Blackhole));
    assert_eq!(find(&ways, "10.2.2.3"), Err(Wayless::Prohibited));
    assert_eq!(find(&ways, "203.0.113.254"), Err(Wayless::Kernel), "the host itself");
    assert_eq!(find(&ways, "10.3.0.1"), Err(Wayless::Kernel), "an interface that is not the node's");
    assert_eq!(find(&Ways::default(), "192.0.2.1"), Err(Wayless::Unreachable));
}

#[test]
fn the_least_metric_counts_and_of_equal_ones_the_first() {
    let to =
        |metric, ifindex, gateway| route(MAIN, "0.0.0.0/0", metric, Fate::Hops(vec![hop(ifindex, Some(gateway), 1)]));
    let neighbours = [(ETH0, "10.0.0.1"), (ETH1, "10.0.0.2"), (ETH1, "10.0.0.3")];
    for routes in [
        vec![to(100, ETH0, "10.0.0.1"), to(20, ETH1, "10.0.0.2"), to(20, ETH1, "10.0.0.3")],
        vec![to(20, ETH1, "10.0.0.2"), to(20, ETH1, "10.0.0.3"), to(100, ETH0, "10.0.0.1")],
    ] {
        assert_eq!(find(&ways(standard(), routes, &neighbours), "192.0.2.1"), Ok((1, 2)));
    }
}

#[test]
fn equal_ways_share_flows_by_weight() {
    let hops = vec![hop(ETH0, Some("10.0.0.1"), 1), hop(ETH1, Some("10.0.0.2"), 3)];
    let neighbours = [(ETH0, "10.0.0.1"), (ETH1, "10.0.0.2")];
    let ways = ways(standard(), vec![route(MAIN, "0.0.0.0/0", 0, Fate::Hops(hops))], &neighbours);
    let slot = |flow: u32| ways.find(&address("192.0.2.1"), &address("10.9.0.11"), flow).expect("a way").slot;
    let flows = 4096u32;
    let second = (0..flows).filter(|flow| slot(flow * (u32::MAX / flows)) == 1).count();
    assert!((3000..=3144).contains(&second), "{second} of {flows} flows, three quarters are meant");
    assert_eq!((slot(0), slot(u32::MAX)), (0, 1));
}

#[test]
fn rules_are_asked_in_the_order_of_their_priority() {
    let mut rules = standard();
    let table = |priority, from: &str, to: Option<&str>, table| Rule {
        from: Some(prefix(from)),
        to: to.map(prefix),
        ..rule(priority, Family::V4, Action::Table(table, None))
    };
    rules.push(table(100, "10.9.0.0/16", None, 10));
    rules.push(table(90, "10.9.0.0/24", Some("192.0.2.0/24"), 11));
    rules.push(Rule { from: Some(prefix("10.8.0.0/16")), ..rule(80, Family::V4, Action::End(Wayless::Prohibited)) });
    let in_table = |table, gateway| route(table, "0.0.0.0/0", 0, Fate::Hops(vec![hop(ETH0, Some(gateway), 1)]));
    let routes = vec![
        in_table(10, "10.0.0.10"),
        in_table(11, "10.0.0.11"),
        in_table(MAIN, "10.0.0.12"),
        route(10, "192.0.3.0/24", 0, Fate::Throw),
    ];
    let neighbours = [(ETH0, "10.0.0.10"), (ETH0, "10.0.0.11"), (ETH0, "10.0.0.12")];
    let ways = ways(rules, routes, &neighbours);
    let from = |from: &str, to: &str| ways.find(&address(to), &address(from), 0).map(|way| way.link.as_bytes()[5]);
    assert_eq!(from("10.9.0.1", "192.0.2.1"), Ok(11));
    assert_eq!(from("10.9.1.1", "192.0.2.1"), Ok(10));
    assert_eq!(from("10.9.0.1", "198.51.100.1"), Ok(10));
    assert_eq!(from("10.9.0.1", "192.0.3.1"), Ok(12), "thrown back to the rules that follow");
    assert_eq!(from("10.7.0.1", "192.0.2.1"), Ok(12));
    assert_eq!(from("10.8.0.1", "192.0.2.1"), Err(Wayless::Prohibited));
}

#[test]
fn a_rule_may_leave_out_short_prefixes_and_what_only_the_kernel_can_match_is_the_kernel_s() {
    let mut rules = standard();
    rules.push(rule(10, Family::V4, Action::Table(MAIN, Some(0))));
    rules.push(rule(20, Family::V4, Action::Table(10, None)));
    let in_table = |table, to, gateway| route(table, to, 0, Fate::Hops(vec![hop(ETH0, Some(gateway), 1)]));
    let routes = vec![
        in_table(MAIN, "0.0.0.0/0", "10.0.0.1"),
        in_table(MAIN, "10.5.0.0/16", "10.0.0.2"),
        in_table(10, "0.0.0.0/0", "10.0.0.3"),
    ];
    let neighbours = [(ETH0, "10.0.0.1"), (ETH0, "10.0.0.2"), (ETH0, "10.0.0.3")];
    let all = ways(rules.clone(), routes.clone(), &neighbours);
    assert_eq!((find(&all, "10.5.0.1"), find(&all, "192.0.2.1")), (Ok((0, 2)), Ok((0, 3))));
    rules.push(Rule { more: true, to: Some(prefix("10.5.0.0/17")), ..rule(5, Family::V4, Action::Table(10, None)) });
    let all = ways(rules, routes, &neighbours);
    assert_eq!((find(&all, "10.5.0.1"), find(&all, "10.5.200.1")), (Err(Wayless::Kernel), Ok((0, 2))));
}

#[test]
fn the_mtu_is_that_of_the_route_when_it_is_less_than_that_of_the_interface() {
    let mtu = |mtu| {
        let route = Route { mtu, ..through("0.0.0.0/0", ETH0, Some("10.0.0.1")) };
        let ways = ways(standard(), vec![route], &[(ETH0, "10.0.0.1")]);
        ways.find(&address("192.0.2.1"), &address("10.9.0.11"), 0).expect("a way").mtu
    };
    assert_eq!([0, 1280, 9000].map(mtu), [1500, 1280, 1500]);
}

#[test]
fn a_neighbour_that_is_used_says_so_once() {
    let ways = ways(standard(), vec![through("0.0.0.0/0", ETH0, Some("10.0.0.1"))], &[(ETH0, "10.0.0.1")]);
    let used = || ways.neighbours.values().filter(|neighbour| neighbour.take_used()).count();
    assert_eq!(used(), 0);
    for _ in 0..3 {
        assert_eq!(find(&ways, "192.0.2.1"), Ok((0, 1)));
    }
    assert_eq!((used(), used()), (1, 0));
}

#[test]
fn asking_wakes_once_until_what_was_asked_is_taken() {
    use std::sync::atomic::AtomicU32;
    let woken = Arc::new(AtomicU32::new(0));
    let count = woken.clone();
    let asks = Asks::new(move || _ = count.fetch_add(1, Ordering::Relaxed));
    for turn in 1..=2 {
        (0..1000).for_each(|n| asks.ask(Next { ifindex: n, address: [0; 16] }));
        assert_eq!(woken.load(Ordering::Relaxed), turn);
        let taken: Vec<u32> = asks.take().map(|next| next.ifindex).collect();
        assert_eq!(taken, (0..256).collect::<Vec<_>>(), "the first, and no more than there is room for");
    }
}
