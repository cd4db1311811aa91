//! What a worker's sockets have to say is gathered and leaves together, when the worker has nothing else to do. Each send
//! wakes whoever reads at the other end, unless it is awake: of sends in a row only the first one costs that.
//!
//! Nothing is held back for longer: a turn ends before its thread waits, and after so many sends or looks at sockets. What
//! is large leaves at once, and so does everything on a thread that has no turns.

mod gathered;

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

pub use self::gathered::Gathered;

/// What waits for the end of the turn.
trait Leaves {
    fn leave(&self);
}

#[derive(Default)]
struct Turn {
    /// This thread says when its turns end.
    has_end: Cell<bool>,
    waiting: RefCell<Vec<Arc<dyn Leaves>>>,
    /// Looks at sockets since the turn before.
    looks: Cell<u32>,
    /// Rooms that what is gathered is put into: an idle connection has none.
    rooms: RefCell<Vec<Vec<u8>>>,
}

thread_local! {
    static TURN: Turn = Turn::default();
}

/// So many sends make a turn of their own.
const MOST_SENDS: usize = 32;
/// A thread that never waits ends a turn after so many looks at sockets.
const MOST_LOOKS: u32 = 128;

/// From now on this thread calls [`end`] whenever it is about to wait.
pub fn begin() {
    TURN.with(|turn| turn.has_end.set(true));
}

/// All that was gathered leaves.
pub fn end() {
    // The list goes back: its room is needed again in the next turn.
    let mut leaving = TURN.with(|turn| turn.waiting.take());
    if leaving.is_empty() {
        return;
    }
    leaving.drain(..).for_each(|one| one.leave());
    TURN.with(|turn| {
        turn.looks.set(0);
        turn.waiting.replace(leaving)
    });
}

/// Somebody has looked at a socket: a sign that the turn goes on.
fn look() {
    let is_long = TURN.with(|turn| {
        let looks = turn.looks.get() + 1;
        turn.looks.set(looks);
        looks >= MOST_LOOKS
    });
    if is_long {
        TURN.with(|turn| turn.looks.set(0));
        end();
    }
}

fn take_room() -> Vec<u8> {
    TURN.with(|turn| turn.rooms.borrow_mut().pop()).unwrap_or_default()
}

fn give_room(mut room: Vec<u8>) {
    room.clear();
    TURN.with(|turn| {
        let mut rooms = turn.rooms.borrow_mut();
        if rooms.len() < MOST_SENDS {
            rooms.push(room);
        }
    });
}

fn has_end() -> bool {
    TURN.with(|turn| turn.has_end.get())
}

fn wait_for_end(one: Arc<dyn Leaves>) {
    let is_full = TURN.with(|turn| {
        let mut waiting = turn.waiting.borrow_mut();
        waiting.push(one);
        waiting.len() >= MOST_SENDS
    });
    if is_full {
        end();
    }
}
