use super::*;

fn input(tokens: usize) -> EncoderInput {
    EncoderInput {
        tokens: vec![7; tokens],
        second_segment: None,
    }
}

fn job(tenant: TenantId, lengths: &[usize]) -> (Job, Waiting) {
    let inputs = lengths.iter().map(|length| input(*length)).collect();
    Job::new(tenant, 1, false, inputs)
}

/// Computes a batch: the row of an input is its length. Returns whose inputs they were, and how many.
fn compute(lines: &mut Lines) -> Vec<(TenantId, usize)> {
    let batch = lines.next_batch();
    let told = batch.iter().map(|part| (part.job.tenant, part.count));
    let told = told.collect();
    for mut part in batch {
        let rows = part.take_inputs();
        let rows = rows.map(|input| vec![input.tokens.len() as f32]).collect();
        lines.computed(part, Ok(rows));
    }
    told
}

#[test]
fn small_requests_share_a_batch_and_rows_keep_the_order_of_their_inputs() {
    let mut lines = Lines::default();
    let (first, mut one) = job(1, &[30, 10, 20]);
    let (second, mut other) = job(2, &[5]);
    lines.push(first);
    lines.push(second);
    assert_eq!(compute(&mut lines), [(1, 3), (2, 1)]);
    let rows = one.done.try_recv().unwrap().unwrap();
    assert_eq!(rows, [[30.0], [10.0], [20.0]]);
    assert!(other.done.try_recv().unwrap().is_ok());
    assert_eq!((lines.running, lines.waiting, lines.started), (0, 0, 2));
    assert!(lines.by_tenant.is_empty());
    assert!(compute(&mut lines).is_empty());
}

#[test]
fn a_large_request_leaves_every_second_batch_to_another_tenant() {
    let mut lines = Lines::default();
    let (large, _first) = job(1, &[512; 32]);
    let (other, _second) = job(2, &[512; 16]);
    lines.push(large);
    assert_eq!(compute(&mut lines), [(1, 8)]);
    lines.push(other);
    // The newcomer begins where the other is.
    let tenants: Vec<_> = (0..4).map(|_| compute(&mut lines)).collect();
    assert_eq!(tenants, [[(1, 8)], [(2, 8)], [(1, 8)], [(2, 8)]]);
    assert_eq!(compute(&mut lines), [(1, 8)]);
    assert!(lines.by_tenant.is_empty());
}

#[test]
fn a_tokens_cost_is_what_its_lane_says() {
    let mut lines = Lines::default();
    let inputs = |count| (0..count).map(|_| input(512)).collect();
    let (batch, _first) = Job::new(1, 8, false, inputs(32));
    let (interactive, _second) = Job::new(2, 1, false, inputs(64));
    lines.push(batch);
    lines.push(interactive);
    let tenants: Vec<_> = (0..10).map(|_| compute(&mut lines)[0].0).collect();
    assert_eq!(tenants, [1, 2, 2, 2, 2, 2, 2, 2, 2, 1]);
}

#[test]
fn an_input_longer_than_a_batch_is_computed_alone() {
    let mut lines = Lines::default();
    let (long, _first) = job(1, &[10, BATCH_TOKENS_MAX + 1, 10]);
    lines.push(long);
    assert_eq!(compute(&mut lines), [(1, 2)]);
    assert_eq!(compute(&mut lines), [(1, 1)]);
}

#[test]
fn urgent_requests_go_first() {
    let mut lines = Lines::default();
    let (usual, _first) = job(1, &[512; 16]);
    lines.push(usual);
    let (urgent, _second) = Job::new(2, 1, true, vec![input(10)]);
    lines.push(urgent);
    assert_eq!(compute(&mut lines)[0], (2, 1));
}

#[test]
fn what_nobody_waits_for_is_left_out() {
    let mut lines = Lines::default();
    let (gone, waiting) = job(1, &[10]);
    let (large, begun) = job(2, &[512; 16]);
    lines.push(gone);
    lines.push(large);
    drop(waiting);
    assert_eq!(compute(&mut lines), [(2, 8)]);
    assert_eq!((lines.running, lines.waiting), (1, 0));
    drop(begun);
    let (next, _waiting) = job(2, &[10]);
    lines.push(next);
    assert_eq!((lines.running, lines.waiting), (0, 1));
    assert_eq!(compute(&mut lines), [(2, 1)]);
    assert!(lines.by_tenant.is_empty());
}

#[test]
fn a_failure_ends_its_own_request() {
    let mut lines = Lines::default();
    let (large, mut waiting) = job(1, &[512; 16]);
    lines.push(large);
    let part = lines.next_batch().pop().unwrap();
    lines.computed(part, Err(EncoderFailed));
    assert_eq!(waiting.done.try_recv().unwrap(), Err(EncoderFailed));
    assert_eq!(lines.running, 0);
    assert!(lines.next_batch().is_empty());
}
