//! The disk at a moment. What a sync has made certain stays; of everything later, contents and names, nobody knows.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

use super::{dice::Dice, record::Event};

#[derive(Default)]
pub struct Disk<'a> {
    files: Vec<File<'a>>,
    /// As programs see them, and as they are certain: a name stands for a number in `files`.
    names: BTreeMap<&'a Path, usize>,
    certain_names: BTreeMap<&'a Path, usize>,
    /// Since the folder was synced last.
    unsynced_names: Vec<Naming<'a>>,
    pub acknowledged: HashSet<&'a str>,
}

#[derive(Default)]
struct File<'a> {
    certain: Vec<u8>,
    unsynced: Vec<&'a Event>,
    /// Changes that are certain.
    synced: usize,
    /// By thread: how many changes there were when its sync began.
    syncs: HashMap<&'a str, usize>,
}

/// A change of the folder.
#[derive(Clone, Copy)]
enum Naming<'a> {
    Create(&'a Path, usize),
    Rename { from: &'a Path, to: &'a Path, file: usize },
    Remove(&'a Path),
}

/// What becomes of what is not synced.
#[derive(Clone, Copy, PartialEq)]
pub enum Fate {
    None,
    Some,
    Torn,
    All,
}

impl<'a> Disk<'a> {
    pub fn after(events: &'a [Event]) -> Self {
        let mut disk = Self::default();
        events.iter().for_each(|event| disk.take(event));
        disk
    }

    pub fn take(&mut self, event: &'a Event) {
        match event {
            Event::Create { name } if self.names.contains_key(&**name) => {}
            Event::Create { name } => {
                self.files.push(File::default());
                self.name(Naming::Create(name, self.files.len() - 1));
            }
            Event::Rename { from, to } => {
                if let Some(&file) = self.names.get(&**from) {
                    self.name(Naming::Rename { from, to, file });
                }
            }
            Event::Remove { name } => self.name(Naming::Remove(name)),
            Event::SyncNames => {
                for naming in self.unsynced_names.drain(..) {
                    naming.apply(&mut self.certain_names);
                }
            }
            Event::Write { file, .. } | Event::Truncate { file, .. } => {
                self.file(file).unsynced.push(event);
            }
            Event::SyncBegins { file, thread } => {
                let file = self.file(file);
                file.syncs.insert(thread, file.synced + file.unsynced.len());
            }
            Event::Sync { file, thread } => {
                let file = self.file(file);
                let upto = file.syncs.remove(&**thread).expect("a sync that ends has begun");
                let covered = upto.saturating_sub(file.synced);
                file.synced += covered;
                let writes = file.unsynced.drain(..covered);
                writes.for_each(|write| write.apply(&mut file.certain));
            }
            Event::Answer { id } => {
                self.acknowledged.insert(id);
            }
        }
    }

    fn name(&mut self, naming: Naming<'a>) {
        naming.apply(&mut self.names);
        self.unsynced_names.push(naming);
    }

    fn file(&mut self, name: &Path) -> &mut File<'a> {
        let number = self.names.get(name);
        let number = *number.unwrap_or_else(|| panic!("{} was never created", name.display()));
        &mut self.files[number]
    }

    /// Whether a cut now has anything to cut.
    pub fn has_unsynced_writes(&self) -> bool {
        self.names.values().any(|&file| !self.files[file].unsynced.is_empty())
    }

    pub fn has_unsynced_names(&self) -> bool {
        !self.unsynced_names.is_empty()
    }

    /// Contents by name, as a start after the cut finds them.
    pub fn contents(&self, fate: Fate, dice: &mut Dice) -> BTreeMap<&'a Path, Vec<u8>> {
        let mut names = self.certain_names.clone();
        for naming in &self.unsynced_names {
            let arrives = match fate {
                Fate::None => false,
                Fate::Some | Fate::Torn => dice.below(2) == 1,
                Fate::All => true,
            };
            if arrives {
                naming.apply(&mut names);
            }
        }
        names.into_iter().map(|(name, file)| (name, self.files[file].content(fate, dice))).collect()
    }

    pub fn rebuild(&self, folder: &Path, fate: Fate, dice: &mut Dice) {
        for (name, content) in self.contents(fate, dice) {
            std::fs::write(folder.join(name.file_name().unwrap()), content).unwrap();
        }
    }
}

impl<'a> Naming<'a> {
    fn apply(self, names: &mut BTreeMap<&'a Path, usize>) {
        match self {
            Self::Create(name, file) => {
                names.insert(name, file);
            }
            Self::Rename { from, to, file } => {
                names.remove(from);
                names.insert(to, file);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl File<'_> {
    fn content(&self, fate: Fate, dice: &mut Dice) -> Vec<u8> {
        let mut image = self.certain.clone();
        for write in &self.unsynced {
            match fate {
                Fate::None => {}
                Fate::All => write.apply(&mut image),
                Fate::Some | Fate::Torn if dice.below(2) == 0 => {}
                Fate::Some => write.apply(&mut image),
                Fate::Torn => write.tear(&mut image, dice),
            }
        }
        image
    }
}

impl Event {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes, .. } => put(image, *offset, bytes),
            Self::Truncate { length, .. } => image.resize(*length, 0),
            _ => {}
        }
    }

    /// Half of its sectors arrive.
    fn tear(&self, image: &mut Vec<u8>, dice: &mut Dice) {
        let Self::Write { offset, bytes, .. } = self else { return self.apply(image) };
        for (number, sector) in bytes.chunks(SECTOR).enumerate() {
            if dice.below(2) == 0 {
                put(image, offset + number * SECTOR, sector);
            }
        }
    }
}

fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if image.len() < offset + bytes.len() {
        image.resize(offset + bytes.len(), 0);
    }
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
}

const SECTOR: usize = 512;
