use super::*;

fn ask(tenant: TenantId, lane: Lane) -> Ask {
    Ask {
        tenant,
        tenants: 10,
        lane,
        prompt_tokens: vec![64],
        max_tokens: 1000,
    }
}

fn bounds(profile: AdmissionProfile) -> Bounds {
    Bounds {
        profile,
        capacity: 4,
        queued: true,
        max_waiting: 8,
        max_tokens: None,
    }
}

const NORMAL: AdmissionProfile = AdmissionProfile::Normal;
const OUTAGE: AdmissionProfile = AdmissionProfile::Outage;

/// Lets requests in until one is refused.
fn fill(queue: &mut Queue, ask: &Ask, bounds: &Bounds) -> (Vec<Stamp>, Refusal) {
    let now = Instant::now();
    let mut stamps = Vec::new();
    loop {
        match queue.enter(ask, bounds, now) {
            Ok(entered) => stamps.extend(entered),
            Err(refusal) => return (stamps, refusal),
        }
    }
}

/// A queue that the engine works off in the scheduler's order.
#[derive(Default)]
struct Line {
    queue: Queue,
    waiting: BTreeMap<(i32, usize), Stamp>,
    arrivals: usize,
}

impl Line {
    fn arrive(&mut self, tenant: TenantId, lane: Lane) {
        let bounds = Bounds {
            capacity: 10_000,
            ..bounds(NORMAL)
        };
        let entered = self
            .queue
            .enter(&ask(tenant, lane), &bounds, Instant::now());
        for stamp in entered.unwrap() {
            self.waiting
                .insert((stamp.priority(), self.arrivals), stamp);
            self.arrivals += 1;
        }
    }

    fn serve(&mut self, generated: u64) -> Option<TenantId> {
        let (_, stamp) = self.waiting.pop_first()?;
        self.queue.admitted(&stamp);
        self.queue.left(&stamp, false, generated);
        Some(stamp.tenant)
    }
}

#[test]
fn a_key_alone_may_use_every_place_and_no_more() {
    let mut queue = Queue::default();
    let only = Ask {
        tenants: 1,
        ..ask(1, Lane::Standard)
    };
    let (stamps, refusal) = fill(&mut queue, &only, &bounds(NORMAL));
    assert_eq!((stamps.len(), refusal), (12, Refusal::Requests));
    for stamp in &stamps {
        queue.left(stamp, true, 0);
    }
    assert_eq!((queue.sequences, queue.waiting_tokens), (0, 0));
}

#[test]
fn a_key_that_crowds_the_queue_gets_no_more_places_once_others_want_in() {
    let mut queue = Queue::default();
    let limits = bounds(NORMAL);
    let (crowd, _) = fill(&mut queue, &ask(1, Lane::Standard), &limits);
    let now = Instant::now();
    assert!(queue.enter(&ask(2, Lane::Standard), &limits, now).is_ok());
    for other in 2..=4 {
        let refused = queue.enter(&ask(other, Lane::Standard), &limits, now);
        assert_eq!(refused.unwrap_err(), Refusal::Requests);
    }
    // As soon as a place is free it is for one of those: four keys have six places each.
    queue.left(&crowd[0], true, 0);
    let crowding = queue.enter(&ask(1, Lane::Standard), &limits, now);
    assert_eq!(crowding.unwrap_err(), Refusal::Share);
    assert!(queue.enter(&ask(3, Lane::Standard), &limits, now).is_ok());
}

#[test]
fn a_part_of_the_queue_is_left_to_keys_that_have_nothing_in_it() {
    let mut queue = Queue::default();
    let limits = Bounds {
        max_waiting: 16,
        max_tokens: Some(64 * 16),
        ..bounds(NORMAL)
    };
    let (crowd, refusal) = fill(&mut queue, &ask(1, Lane::Standard), &limits);
    assert_eq!((crowd.len(), refusal), (14, Refusal::Tokens));
    let limits = Bounds {
        max_tokens: None,
        ..limits
    };
    let (more, refusal) = fill(&mut queue, &ask(1, Lane::Standard), &limits);
    assert_eq!((more.len(), refusal), (4, Refusal::Share));
    let now = Instant::now();
    for other in [2, 3] {
        assert!(
            queue
                .enter(&ask(other, Lane::Standard), &limits, now)
                .is_ok()
        );
    }
    let last = queue.enter(&ask(4, Lane::Standard), &limits, now);
    assert_eq!(last.unwrap_err(), Refusal::Requests);
}

#[test]
fn in_an_outage_shares_are_equal_and_one_is_kept_for_the_next_key() {
    let mut queue = Queue::default();
    let limits = bounds(OUTAGE);
    let (first, refusal) = fill(&mut queue, &ask(1, Lane::Standard), &limits);
    assert_eq!((first.len(), refusal), (6, Refusal::Share));
    let (second, refusal) = fill(&mut queue, &ask(2, Lane::Standard), &limits);
    assert_eq!((second.len(), refusal), (4, Refusal::Share));
    let batch = queue.enter(&ask(3, Lane::Batch), &limits, Instant::now());
    assert_eq!(batch.unwrap_err(), Refusal::Lane);
    let alone = Ask {
        tenants: 1,
        ..ask(9, Lane::Standard)
    };
    let (all, refusal) = fill(&mut Queue::default(), &alone, &limits);
    assert_eq!((all.len(), refusal), (12, Refusal::Requests));
}

#[test]
fn prompt_tokens_are_bounded_but_a_long_prompt_can_wait_alone() {
    let mut queue = Queue::default();
    let limits = Bounds {
        max_tokens: Some(100),
        ..bounds(NORMAL)
    };
    let long = Ask {
        prompt_tokens: vec![500],
        ..ask(1, Lane::Standard)
    };
    let now = Instant::now();
    let first = queue.enter(&long, &limits, now).unwrap();
    let refused = queue.enter(&ask(1, Lane::Standard), &limits, now);
    assert_eq!(refused.unwrap_err(), Refusal::Tokens);
    queue.admitted(&first[0]);
    assert!(queue.enter(&ask(1, Lane::Standard), &limits, now).is_ok());
}

#[test]
fn one_key_is_served_in_order_of_arrival() {
    let mut line = Line::default();
    let mut last = i32::MIN;
    for number in 0..1000 {
        line.arrive(1, Lane::Standard);
        let newest = *line
            .waiting
            .keys()
            .map(|(priority, _)| priority)
            .max()
            .unwrap();
        assert!(newest >= last);
        last = newest;
        if number % 3 == 0 {
            line.serve(number);
        }
    }
}

#[test]
fn a_newcomer_does_not_wait_behind_the_whole_queue_of_another_key() {
    let mut line = Line::default();
    (0..100).for_each(|_| line.arrive(1, Lane::Standard));
    (0..10).for_each(|_| assert_eq!(line.serve(100), Some(1)));
    line.arrive(2, Lane::Standard);
    let served: Vec<_> = (0..3).map(|_| line.serve(100).unwrap()).collect();
    assert!(served.contains(&2), "{served:?}");
}

#[test]
fn keys_share_by_tokens_and_lanes_by_weight() {
    let mut line = Line::default();
    for _ in 0..600 {
        line.arrive(1, Lane::Interactive);
        line.arrive(2, Lane::Standard);
        line.arrive(3, Lane::Batch);
    }
    let mut served = [0; 4];
    for _ in 0..520 {
        served[line.serve(200).unwrap() as usize] += 1;
    }
    // Eight, four and one of thirteen.
    assert!((310..=330).contains(&served[1]), "{served:?}");
    assert!((150..=170).contains(&served[2]), "{served:?}");
    assert!((35..=45).contains(&served[3]), "{served:?}");
}

#[test]
fn long_answers_count_against_their_key() {
    let mut line = Line::default();
    let mut served = [0u32; 3];
    // Both always have a request waiting; the answers of one are ten times as long.
    (1..=2).for_each(|tenant| line.arrive(tenant, Lane::Standard));
    line.arrive(3, Lane::Batch);
    for _ in 0..1000 {
        let (_, stamp) = line.waiting.pop_first().unwrap();
        line.queue.admitted(&stamp);
        let generated = if stamp.tenant == 1 { 5000 } else { 500 };
        line.queue.left(&stamp, false, generated);
        served[stamp.tenant as usize - 1] += 1;
        let lane = if stamp.tenant == 3 {
            Lane::Batch
        } else {
            Lane::Standard
        };
        line.arrive(stamp.tenant, lane);
    }
    assert!(served[1] > 5 * served[0], "{served:?}");
    assert!(served[2] > 0, "no lane starves: {served:?}");
}

#[test]
fn batch_requests_are_served_however_many_others_come() {
    let mut line = Line::default();
    line.arrive(9, Lane::Batch);
    for turn in 0.. {
        assert!(turn < 100, "the batch request starved");
        line.arrive(1, Lane::Interactive);
        line.arrive(1, Lane::Interactive);
        if line.serve(500) == Some(9) {
            return;
        }
    }
}

#[test]
fn probes_pass_a_full_queue_but_only_a_few_of_them() {
    let mut queue = Queue::default();
    let limits = bounds(NORMAL);
    let (_, refusal) = fill(&mut queue, &ask(1, Lane::Standard), &limits);
    assert_eq!(refusal, Refusal::Share);
    let kept = queue.enter(&ask(3, Lane::Standard), &limits, Instant::now());
    assert!(kept.is_ok());
    let probe = Ask {
        max_tokens: 16,
        ..ask(2, Lane::Standard)
    };
    let (probes, refusal) = fill(&mut queue, &probe, &limits);
    assert_eq!(probes.len() as u32, super::super::probes::PROBE_PLACES);
    assert_eq!(refusal, Refusal::Requests);
    assert!(probes.iter().all(|stamp| stamp.priority() == i32::MIN));
    // The places are free again, but the pace is used up.
    probes.iter().for_each(|stamp| queue.left(stamp, true, 0));
    let now = Instant::now();
    assert!(queue.enter(&probe, &limits, now).is_err());
    let later = now + Duration::from_secs(2);
    assert!(queue.enter(&probe, &limits, later).is_ok());
}

#[test]
fn keys_are_forgotten_and_an_idle_server_begins_anew() {
    let mut queue = Queue::default();
    let begin = Instant::now();
    for tenant in 0..100 {
        let stamps = queue.enter(&ask(tenant, Lane::Standard), &bounds(NORMAL), begin);
        for stamp in stamps.unwrap() {
            queue.admitted(&stamp);
            queue.left(&stamp, false, 10_000);
        }
    }
    assert_eq!(queue.clock, 0);
    let later = begin + 2 * REMEMBERED;
    let stamps = queue.enter(&ask(7, Lane::Standard), &bounds(NORMAL), later);
    assert_eq!(queue.tenants.len(), 1);
    let first = stamps.unwrap()[0].priority();
    assert!(first < i32::MIN + 100, "{first}");
}

#[test]
fn virtual_time_ends_in_order_of_arrival() {
    let stamp = |finish| Stamp {
        tenant: 0,
        lane: Lane::Standard,
        prompt_tokens: 1,
        finish: Some(finish),
    };
    assert!(stamp(0).priority() > i32::MIN);
    assert!(stamp(64).priority() > stamp(63).priority());
    assert_eq!(stamp(u64::MAX).priority(), i32::MAX);
    assert_eq!(stamp(u64::MAX - 1).priority(), i32::MAX);
}
