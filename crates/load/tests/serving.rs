//! Loads against a server that does what a test says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backstop_load::{
    Backend, Burstiness, Calibration, Lengths, Objectives, Outcome, Pace, Prompts, Settings,
    Summary, Target, Wire, Workload, arrivals, calibrate, conversations, flaws, random, run,
    summarise,
};
use support::{Reply, serve, target};

const LENGTHS: Lengths = Lengths {
    input: 8,
    output: 4,
    range_ratio: 0.0,
};

fn wire(backend: Backend) -> Wire {
    Wire {
        backend,
        model: Some("m".into()),
        prompts: Prompts::TokenIds,
        seed: 1,
        ignore_eos: true,
        extra: serde_json::Map::default(),
    }
}

fn workload(count: usize) -> Arc<Workload> {
    Arc::new(Workload {
        sessions: random(count, LENGTHS, 0, 1, 0),
        wire: wire(Backend::Completions),
        think: Duration::ZERO,
    })
}

async fn closed(target: &Target, count: usize, clients: usize) -> Outcome {
    let pace = Pace::Closed { clients };
    run(target, workload(count), &pace, |_| {}).await.unwrap()
}

async fn open(target: &Target, count: usize, rate: f64, in_flight_max: usize) -> Outcome {
    let arrivals = arrivals(count, rate, Burstiness::new(f64::INFINITY).unwrap(), 1).unwrap();
    let pace = Pace::Open {
        arrivals,
        in_flight_max,
    };
    run(target, workload(count), &pace, |_| {}).await.unwrap()
}

fn summary(outcome: &Outcome) -> Summary {
    let settings = Settings {
        objectives: Objectives::parse(["ttft:200"]).unwrap(),
        percents: vec![50.0, 90.0, 99.0],
    };
    summarise(&outcome.records, outcome.seconds, &settings)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_sent_once_and_counted() {
    let (address, seen) = serve(|_| Reply::Stream {
        tokens: 4,
        usage: true,
    })
    .await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = told.clone();
    let pace = Pace::Closed { clients: 3 };
    let watch = move |progress: backstop_load::Progress| telling.lock().unwrap().push(progress);
    let outcome = run(&target(address), workload(20), &pace, watch)
        .await
        .unwrap();
    assert_eq!(seen.requests.load(Ordering::Relaxed), 20);
    assert_eq!(outcome.records.len(), 20);
    assert!(
        outcome
            .records
            .iter()
            .all(|record| record.events_us.len() == 4)
    );
    let summary = summary(&outcome);
    assert_eq!((summary.completed, summary.total_output_tokens), (20, 80));
    assert_eq!(summary.total_input_tokens, 180);
    assert_eq!(summary.itl_s.unwrap().count, 60);
    assert_eq!(summary.counted_by_pieces, 0);
    let most = told.lock().unwrap().iter().map(|one| one.done).max();
    assert_eq!(most, Some(20));
    let mut prompts: Vec<String> = seen
        .bodies
        .lock()
        .await
        .iter()
        .map(|body| body["prompt"].to_string())
        .collect();
    prompts.sort();
    prompts.dedup();
    assert_eq!(prompts.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_kept_between_requests() {
    let (address, seen) = serve(|_| Reply::Stream {
        tokens: 2,
        usage: true,
    })
    .await;
    closed(&target(address), 50, 2).await;
    // One that is not ready in time is replaced.
    assert!(seen.connections.load(Ordering::Relaxed) < 25);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_and_aborted_streams_are_told_apart() {
    let (address, _) = serve(|number| match number % 6 {
        0 => Reply::Stream {
            tokens: 4,
            usage: true,
        },
        1 => Reply::Status(429),
        2 => Reply::BreakOff(2),
        3 => Reply::ErrorEvent,
        4 => Reply::Unfinished,
        _ => Reply::Status(503),
    })
    .await;
    let summary = summary(&closed(&target(address), 12, 1).await);
    assert_eq!((summary.completed, summary.failed), (2, 10));
    for (kind, count) in [
        ("http_429", 2),
        ("http_503", 2),
        ("broken", 4),
        ("event", 2),
    ] {
        assert_eq!(summary.errors[kind], count, "{:?}", summary.errors);
    }
    assert_eq!(summary.messages["event"], "it broke");
    assert_eq!(summary.good_fraction, Some(2.0 / 12.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_silent_or_not_there_is_an_error_and_no_hang() {
    let (address, _) = serve(|_| Reply::Silence).await;
    let silent = Target {
        endpoint: target(address)
            .endpoint
            .with_silence_max(Duration::from_millis(50)),
        ..target(address)
    };
    let summary_of_silence = summary(&closed(&silent, 2, 2).await);
    assert_eq!(summary_of_silence.errors["timeout"], 2);
    let impatient = Target {
        patience: Duration::from_millis(50),
        ..target(address)
    };
    assert_eq!(
        summary(&closed(&impatient, 2, 2).await).errors["timeout"],
        2
    );
    let free = std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let outcome = closed(&target(free), 3, 1).await;
    let nobody = summary(&outcome);
    assert_eq!(nobody.errors["connection"], 3);
    assert_eq!(
        flaws(&outcome.records, &nobody).invalid,
        ["no request was answered"]
    );
}

/// A server that stalls once. Clients that wait for their answers stop asking meanwhile, and so hardly any of their requests
/// sees it; requests that have a time of their own do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_is_seen_from_the_planned_time_on_and_not_by_a_closed_loop() {
    const STALL: Duration = Duration::from_millis(1500);
    let stalls_once = |number| match number {
        10 => Reply::After(STALL),
        _ => Reply::Stream {
            tokens: 2,
            usage: true,
        },
    };
    let p90 = |spread: Option<backstop_load::Spread>| spread.unwrap().percentile(90.0).unwrap();
    let (address, _) = serve(stalls_once).await;
    let by_clients = summary(&closed(&target(address), 100, 1).await);
    assert!(p90(by_clients.ttft_s) < STALL.as_secs_f64() / 3.0);
    // 100 a second for two seconds: three in four come during the stall.
    let (address, _) = serve(stalls_once).await;
    let by_time = summary(&open(&target(address), 200, 100.0, 1).await);
    assert!(p90(by_time.ttft_s) < STALL.as_secs_f64() / 3.0);
    assert!(p90(by_time.ttft_from_planned_s) > STALL.as_secs_f64() / 2.0);
    assert!(by_time.good_fraction.unwrap() > 0.9);
    assert!(by_time.good_fraction_from_planned.unwrap() < 0.7);
    assert!(by_time.client_queue_time_s.unwrap().count > 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_nobody_counted_are_counted_by_pieces_and_said_so() {
    let (address, _) = serve(|_| Reply::Stream {
        tokens: 3,
        usage: false,
    })
    .await;
    let outcome = closed(&target(address), 4, 1).await;
    let summary = summary(&outcome);
    assert_eq!(
        (summary.total_output_tokens, summary.counted_by_pieces),
        (12, 4)
    );
    assert_eq!(summary.total_input_tokens, 32);
    assert!(flaws(&outcome.records, &summary).notes[0].contains("counted no tokens"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_in_one_piece_is_said_to_be_one() {
    let (address, _) = serve(|_| Reply::Whole).await;
    let outcome = closed(&target(address), 2, 1).await;
    let summary = summary(&outcome);
    assert_eq!(summary.ttft_s, summary.e2el_s);
    let notes = flaws(&outcome.records, &summary).notes;
    assert!(
        notes.iter().any(|note| note.contains("one piece")),
        "{notes:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_of_a_conversation_follow_one_another() {
    let (address, seen) = serve(|_| Reply::Stream {
        tokens: 2,
        usage: true,
    })
    .await;
    let workload = Workload {
        sessions: conversations(6, 3, LENGTHS, 1, 0),
        wire: wire(Backend::Chat),
        think: Duration::from_millis(5),
    };
    let pace = Pace::Closed { clients: 2 };
    let outcome = run(&target(address), Arc::new(workload), &pace, |_| {})
        .await
        .unwrap();
    assert_eq!(outcome.records.len(), 6);
    assert!(
        outcome
            .records
            .iter()
            .all(backstop_load::Record::is_answered)
    );
    let bodies = seen.bodies.lock().await;
    let longest = bodies
        .iter()
        .map(|body| body["messages"].as_array().unwrap().len())
        .max();
    assert_eq!(longest, Some(5));
    let last = bodies
        .iter()
        .find(|body| body["messages"].as_array().unwrap().len() == 5)
        .unwrap();
    assert_eq!(last["messages"][1]["content"], " 0 1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_token_ids_is_asked_in_words() {
    let (address, seen) = serve(|number| match number {
        0 => Reply::Status(400),
        _ => Reply::Stream {
            tokens: 1,
            usage: true,
        },
    })
    .await;
    let calibration = calibrate(&target(address), &wire(Backend::Completions))
        .await
        .unwrap();
    // It counts the same for both.
    assert_eq!(
        calibration,
        Calibration {
            prompts: Prompts::Words { per_token: 1.0 },
            overhead_tokens: None,
            has_usage: true,
        }
    );
    assert!(seen.bodies.lock().await[0]["prompt"].is_array());
    assert!(seen.bodies.lock().await[1]["prompt"].is_string());
    let (address, _) = serve(|_| Reply::Status(401)).await;
    let error = calibrate(&target(address), &wire(Backend::Completions))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no room"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_recorded_is_refused() {
    let (address, _) = serve(|_| Reply::Silence).await;
    let endless = Lengths {
        output: 1 << 20,
        ..LENGTHS
    };
    let workload = Workload {
        sessions: random(65, endless, 0, 1, 0),
        wire: wire(Backend::Completions),
        think: Duration::ZERO,
    };
    let pace = Pace::Closed { clients: 1 };
    let error = run(&target(address), Arc::new(workload), &pace, |_| {})
        .await
        .unwrap_err();
    assert!(error.to_string().contains("split it"), "{error}");
    let early = Pace::Open {
        arrivals: vec![Duration::ZERO],
        in_flight_max: 1,
    };
    assert!(
        run(&target(address), self::workload(2), &early, |_| {})
            .await
            .is_err()
    );
}
