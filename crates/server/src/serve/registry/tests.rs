use futures::FutureExt;

use super::*;

fn registry(connections: usize, strangers_per_address: usize) -> Arc<Registry> {
    Registry::new(RegistryLimits {
        connections,
        strangers_per_address,
    })
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}

fn is_evicted(stay: &Stay) -> bool {
    stay.visit().evicted().now_or_never().is_some()
}

#[test]
fn an_address_over_its_share_loses_its_own_oldest_stranger() {
    let registry = registry(10, 3);
    let other = registry.admit(address(2)).unwrap();
    let mine: Vec<Stay> = (0..3)
        .map(|_| registry.admit(address(1)).unwrap())
        .collect();
    let next = registry.admit(address(1)).unwrap();
    let evicted: Vec<bool> = mine.iter().map(is_evicted).collect();
    assert_eq!(evicted, [true, false, false]);
    assert!(!is_evicted(&other) && !is_evicted(&next));
    assert_eq!(registry.seats().taken, 4);
}

#[test]
fn an_address_whose_requests_were_let_in_has_no_share() {
    let registry = registry(100, 3);
    let visits: Vec<Stay> = (0..50)
        .map(|_| {
            let stay = registry.admit(address(1)).unwrap();
            stay.visit().let_in();
            stay.visit().let_in();
            stay
        })
        .collect();
    assert!(!visits.iter().any(is_evicted));
    assert_eq!(registry.seats().taken, 50);
}

#[test]
fn the_crowd_makes_room_before_a_lonely_stranger() {
    let registry = registry(4, 3);
    let lonely = registry.admit(address(2)).unwrap();
    let crowd: Vec<Stay> = (0..3)
        .map(|_| registry.admit(address(1)).unwrap())
        .collect();
    let newcomer = registry.admit(address(3)).unwrap();
    assert!(!is_evicted(&lonely) && !is_evicted(&newcomer));
    assert!(is_evicted(&crowd[0]) && !is_evicted(&crowd[1]));
}

#[test]
fn of_connections_that_were_let_in_the_longest_idle_makes_room_and_no_request_is_cut() {
    let registry = registry(3, 3);
    let visits: Vec<Stay> = (0..3)
        .map(|_| registry.admit(address(1)).unwrap())
        .collect();
    visits.iter().for_each(|stay| stay.visit().let_in());
    let running = visits[0].visit().begin();
    drop(visits[2].visit().begin());
    drop(visits[1].visit().begin());
    let next = registry.admit(address(2)).unwrap();
    next.visit().let_in();
    let evicted: Vec<bool> = visits.iter().map(is_evicted).collect();
    assert_eq!(evicted, [false, false, true]);
    let _also = (visits[1].visit().begin(), next.visit().begin());
    assert!(registry.admit(address(3)).is_none());
    drop(running);
    assert!(registry.admit(address(3)).is_some());
    assert!(is_evicted(&visits[0]));
}

#[test]
fn slow_requests_of_strangers_do_not_push_out_who_has_just_come() {
    let registry = registry(4, 2);
    let slow = registry.admit(address(1)).unwrap();
    let _turn = slow.visit().begin();
    let fresh = registry.admit(address(1)).unwrap();
    let _third = registry.admit(address(1)).unwrap();
    assert!(is_evicted(&slow) && !is_evicted(&fresh));
}

#[test]
fn who_had_to_make_room_frees_no_second_place() {
    let registry = registry(2, 2);
    let (first, second) = (registry.admit(address(1)), registry.admit(address(1)));
    let _third = registry.admit(address(1)).unwrap();
    // It was evicted already.
    drop(first);
    assert_eq!(registry.seats().taken, 2);
    drop(second);
    assert_eq!(registry.seats().taken, 1);
}

#[test]
fn an_ipv6_network_is_one_address() {
    let network_of = |text: &str| network(text.parse().unwrap());
    assert_eq!(
        network_of("2001:db8:1:2:3::4"),
        network_of("2001:db8:1:2::")
    );
    assert_ne!(network_of("2001:db8:1:2::"), network_of("2001:db8:1:3::"));
    assert_eq!(network_of("::ffff:127.0.0.1"), network_of("127.0.0.1"));
    assert_ne!(network_of("127.0.0.1"), network_of("127.0.0.2"));
}
