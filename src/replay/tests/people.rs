//! What people ask of a replay: by hand, of one entry alone, stopped, or forced off.

use super::*;

#[test]
fn a_manual_route_waits_for_a_person() {
    local(async {
        let mut rig = Rig::new(&orders("trigger = \"manual\"")).await;
        let seqs = rig.orders(["1", "2"]).await;
        rig.run();
        a_while().await;
        assert!(rig.app.seen().is_empty());
        assert!(rig.replay.runs().is_empty());

        let run = rig.replay.start(of_route("orders"), "ann", "prices are right again");
        assert_eq!((run.scope.as_str(), run.total), ("route orders", 2));
        rig.all_complete(&seqs).await;
        let run = rig.ends(&run.id).await;
        assert_eq!((run.who.as_str(), run.state, run.completed), ("ann", RunState::Done, 2));
    });
}

#[test]
fn one_entry_alone_and_one_that_joins() {
    local(async {
        let mut rig = Rig::new(&orders("trigger = \"manual\"")).await;
        let seqs = rig.orders(["1", "2"]).await;
        rig.run();
        let one = Scope { seq: Some(seqs[1]), ..Scope::default() };
        let run = rig.replay.start(one.clone(), "ann", "customer on the phone");
        rig.all_complete(&seqs[1..]).await;
        let run = rig.ends(&run.id).await;
        let receipt = rig.entry(seqs[1]).await.receipt;
        assert_eq!((run.scope, run.completed), (format!("entry {receipt}"), 1));
        assert_eq!(rig.app.bodies(), ["2"]);

        rig.app.behave(|_| Reply::status(201).after(Duration::from_millis(300)));
        let more = rig.orders(["3", "4"]).await;
        let all = rig.replay.start(Scope::default(), "ann", "all of it");
        assert_eq!(rig.replay.start(Scope::default(), "bob", "me too").id, all.id);
        let one = Scope { seq: Some(more[1]), ..Scope::default() };
        assert_eq!(rig.replay.start(one, "bob", "this one").id, all.id, "it covers that");
        rig.all_complete(&seqs).await;
        rig.all_complete(&more).await;
    });
}

#[test]
fn a_stopped_run_sends_no_more_and_does_not_start_by_itself() {
    local(async {
        let mut rig = Rig::new(&orders("pace = 1")).await;
        rig.app.behave(|_| Reply::status(201).after(Duration::from_millis(100)));
        let seqs = rig.orders(["1", "2", "3", "4"]).await;
        rig.run();
        eventually(|| if rig.app.seen().is_empty() { Err(()) } else { Ok(()) }).await;
        let run = rig.replay.runs().remove(0);
        assert!(rig.replay.stop(&run.id, "ann", "wrong prices"));
        let run = rig.ends(&run.id).await;
        assert_eq!(run.state, RunState::Stopped("by ann: wrong prices".into()));
        assert_eq!(run.completed, 1, "what was in flight ended");
        a_while().await;
        assert_eq!(rig.app.seen().len(), 1);
        assert_eq!(rig.replay.runs().len(), 1);
        for seq in &seqs[1..] {
            assert_eq!(rig.entry(*seq).await.state, State::Stored);
        }
        rig.replay.start(Scope::default(), "ann", "prices are right again");
        rig.all_complete(&seqs).await;
    });
}

#[test]
fn forced_pauses_what_nobody_asked_for() {
    local(async {
        let mut rig = Rig::new(ORDERS).await;
        rig.modes.set(None, Mode::Forced, None, "ann", "deploy").await.unwrap();
        let seqs = rig.orders(["1"]).await;
        rig.run();
        a_while().await;
        assert!(rig.app.seen().is_empty());
        rig.modes.set(None, Mode::Auto, None, "ann", "done").await.unwrap();
        rig.all_complete(&seqs).await;

        rig.modes.set(None, Mode::Forced, None, "ann", "deploy").await.unwrap();
        let seqs = rig.orders(["2"]).await;
        rig.replay.start(Scope::default(), "ann", "just these");
        rig.all_complete(&seqs).await;
    });
}
