//! The threads: what each does in its turn, how blocks pass between them, and how they end.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

use tiermalloc::Stats;
use tiermalloc_fuzz::live::{self, most};
use tiermalloc_fuzz::request::{Align, Size};

use crate::blocks::{Block, Door};
use crate::{Input, Op};

/// Threads at any time.
const THREADS: usize = 4;
/// Operations of one input.
const TURNS: usize = 120;

/// Blocks under way to each thread.
type Mail = Arc<[Mutex<Vec<Block>>; THREADS]>;

/// Makes the operations, and checks that nothing is left.
pub fn run(input: &Input) {
    let mail = Mail::default();
    let mut slots: [Option<Slot>; THREADS] = Default::default();
    let mut ended = Vec::new();
    for &(who, op) in input.turns.iter().take(TURNS) {
        let who = usize::from(who) % THREADS;
        let slot = slots[who].get_or_insert_with(|| Slot::start(who, &mail, !input.together));
        slot.turn(op, !input.together);
        if matches!(op, Op::End { .. }) {
            let slot = slots[who].take().expect("there is one");
            if input.together { ended.push(slot) } else { slot.join() }
        }
    }
    slots.into_iter().flatten().chain(ended).for_each(Slot::join);
    // What nobody has fetched; the one who frees it ends as well.
    let rest: Vec<Block> = mail.iter().flat_map(|box_| box_.lock().unwrap().split_off(0)).collect();
    std::thread::spawn(|| rest.into_iter().for_each(|block| block.free(false))).join().unwrap();
    check_that_nothing_is_left();
}

/// All blocks are freed and all threads have ended: what the heap holds is free and goes back.
fn check_that_nothing_is_left() {
    let before = tiermalloc::stats();
    assert_eq!((before.live, before.threads), (0, 0), "{before:?}");
    // The caches of the last few threads wait for the next ones until somebody trims.
    tiermalloc::trim(0);
    let Stats { thread_caches, transfer_caches, span_free, free_dirty, huge, .. } =
        tiermalloc::stats();
    assert_eq!(
        (thread_caches, transfer_caches, span_free, free_dirty, huge),
        (0, 0, 0, 0, 0),
        "{before:?}"
    );
}

/// A thread as the one who gives out the turns sees it.
struct Slot {
    turns: Sender<Op>,
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Slot {
    fn start(me: usize, mail: &Mail, alone: bool) -> Self {
        let (turns, its_turns) = channel();
        let (its_done, done) = channel();
        let mail = mail.clone();
        let thread = std::thread::spawn(move || {
            let mut thread = Thread { me, mail, blocks: Vec::new(), alone };
            for op in its_turns {
                thread.step(op);
                // Nobody waits for it where threads run beside each other.
                let _ = its_done.send(());
            }
        });
        Self { turns, done, thread }
    }

    fn turn(&self, op: Op, wait: bool) {
        self.turns.send(op).expect("the thread takes turns until it is told to end");
        if wait {
            self.done.recv().expect("the thread finishes its turn");
        }
    }

    fn join(self) {
        drop(self.turns);
        self.thread.join().expect("the thread ends in good order");
    }
}

/// A thread as it sees itself.
struct Thread {
    me: usize,
    mail: Mail,
    blocks: Vec<Block>,
    /// Nobody else does anything in its turn.
    alone: bool,
}

impl Drop for Thread {
    /// What is left goes to whoever comes next.
    fn drop(&mut self) {
        self.mail[self.me].lock().unwrap().append(&mut self.blocks);
    }
}

impl Thread {
    fn take(&mut self, pick: u8) -> Option<Block> {
        let count = self.blocks.len();
        (count > 0).then(|| self.blocks.swap_remove(usize::from(pick) % count))
    }

    fn step(&mut self, op: Op) {
        self.blocks.append(&mut self.mail[self.me].lock().unwrap());
        match op {
            Op::Malloc(size) => self.blocks.push(Block::malloc(size.bytes(most()))),
            Op::MallocCached(size) => self.blocks.push(Block::malloc_cached(size.bytes(most()))),
            Op::Aligned(size, align) => {
                self.blocks.push(Block::aligned(size.bytes(most()), align.bytes()));
            }
            Op::Rust(size, align) => {
                self.blocks.push(Block::rust(size.bytes(most()), align.bytes()));
            }
            Op::ZeroedRust(size, align) => {
                self.blocks.push(Block::zeroed(size.bytes(most()), align.bytes(), Door::Rust));
            }
            Op::ZeroedRaw(size, align) => {
                self.blocks.push(Block::zeroed(size.bytes(most()), align.bytes(), Door::Raw));
            }
            Op::Many(size, count) => {
                for _ in 0..count {
                    self.blocks.push(Block::malloc(size.bytes(most().min(20_000))));
                }
            }
            Op::Free { pick, sized } => {
                if let Some(block) = self.take(pick) {
                    block.free(sized);
                }
            }
            Op::FreeMany { count, oldest, sized } => {
                let count = usize::from(count).min(self.blocks.len());
                let from = if oldest { 0 } else { self.blocks.len() - count };
                self.blocks.drain(from..from + count).for_each(|block| block.free(sized));
            }
            Op::Realloc(pick, size) => {
                if let Some(block) = self.take(pick) {
                    self.blocks.push(block.realloc(size.bytes(most())));
                }
            }
            Op::Check(pick) => {
                if let Some(block) = self.take(pick) {
                    block.check();
                    self.blocks.push(block);
                }
            }
            Op::Give { count, to } => {
                let from = self.blocks.len().saturating_sub(count.into());
                let given = self.blocks.drain(from..);
                self.mail[usize::from(to) % THREADS].lock().unwrap().extend(given);
            }
            Op::InVain(size, align) => Block::in_vain(size.bytes(), align.bytes()),
            Op::ReallocInVain(pick, size) => {
                if let Some(block) = self.take(pick) {
                    block.realloc_in_vain(size.bytes());
                    self.blocks.push(block);
                }
            }
            Op::Trim(keep) => {
                tiermalloc::trim(usize::from(keep) << 8);
            }
            Op::Verify => tiermalloc::verify(),
            Op::Stats => {
                let (stats, bytes) = (tiermalloc::stats(), live::bytes());
                assert!(!self.alone || stats.live == bytes, "{bytes} bytes live: {stats:?}");
            }
            Op::End { late } => {
                if late {
                    self.end_late();
                }
            }
        }
    }

    /// Leaves the rest to a destructor that runs after the allocator's own.
    fn end_late(&mut self) {
        let blocks = std::mem::take(&mut self.blocks);
        let (me, mail, alone) = (self.me, self.mail.clone(), self.alone);
        set_late(Box::new(Late { rounds: 2, thread: Self { me, mail, blocks, alone } }));
    }
}

/// What a thread does when its cache is gone.
struct Late {
    /// Rounds of destructors until then: the allocator's own is told of in the first.
    rounds: usize,
    thread: Thread,
}

fn set_late(late: Box<Late>) {
    static KEY: OnceLock<libc::pthread_key_t> = OnceLock::new();
    let key = *KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: the key is writable; the destructor takes what is set below.
        assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(at_end)) }, 0);
        key
    });
    // SAFETY: the key exists for the rest of the process.
    assert_eq!(unsafe { libc::pthread_setspecific(key, Box::into_raw(late).cast()) }, 0);
}

unsafe extern "C" fn at_end(value: *mut libc::c_void) {
    // SAFETY: `set_late` has put it there, and nobody else takes it.
    let mut late = unsafe { Box::from_raw(value.cast::<Late>()) };
    if late.rounds > 0 {
        late.rounds -= 1;
        return set_late(late);
    }
    let thread = &mut late.thread;
    thread.step(Op::FreeMany { count: 20, oldest: true, sized: true });
    thread.step(Op::FreeMany { count: 20, oldest: false, sized: false });
    for n in 0..10 {
        thread.step(Op::Malloc(Size::Class(n * 20, 0)));
        thread.step(Op::ZeroedRust(Size::Class(n * 20 + 5, 0), Align::Any(n)));
        thread.step(Op::Realloc(n, Size::Class(n * 17, 1)));
    }
    thread.step(Op::Trim(0));
    thread.step(Op::Verify);
    thread.step(Op::FreeMany { count: 10, oldest: false, sized: false });
    thread.step(Op::Stats);
}
