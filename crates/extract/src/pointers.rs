//! The fields that a job needs of a payload: its JSON pointers (RFC 6901) as a tree, along which each format is walked.

use std::ops::Range;

/// The needed pointers, compiled.
#[derive(Debug)]
pub(crate) struct Pointers {
    /// In the order of their tokens, so that all pointers below a common prefix are neighbours.
    paths: Vec<Path>,
    root: Node,
}

/// Index of a pointer in its [`Pointers`] and of its value in a [`Found`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(usize);

#[derive(Debug)]
struct Path {
    tokens: Vec<String>,
    pointer: String,
}

/// A place in the payload to which pointers lead.
#[derive(Debug)]
pub(crate) struct Node {
    /// The pointers that lead to this node or below it.
    pub(crate) slots: Range<usize>,
    /// Whether the first of them ends here.
    needed: bool,
    pub(crate) children: Vec<Child>,
}

/// A step from one place into another.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) name: String,
    /// The name as most producers of JSON write it, quotes included.
    pub(crate) quoted: String,
    /// The name as a position in an array.
    pub(crate) index: Option<usize>,
    pub(crate) node: Node,
}

impl Pointers {
    /// `pointers` begin with `/`, as the job file requires.
    pub(crate) fn new<'a>(pointers: impl Iterator<Item = &'a str>) -> Self {
        let mut paths: Vec<_> =
            pointers.map(|pointer| Path { tokens: tokens(pointer), pointer: pointer.to_owned() }).collect();
        paths.sort_by(|a, b| a.tokens.cmp(&b.tokens));
        paths.dedup_by(|a, b| a.tokens == b.tokens);
        let root = Node::new(&paths, 0, 0);
        Self { paths, root }
    }

    /// The slot of a pointer that was given to [`Pointers::new`].
    pub(crate) fn slot(&self, pointer: &str) -> Slot {
        let tokens = tokens(pointer);
        Slot(self.paths.partition_point(|path| path.tokens < tokens))
    }

    pub(crate) fn pointer(&self, slot: Slot) -> &str {
        self.paths.get(slot.0).map_or("", |path| &path.pointer)
    }

    /// What the pointers begin in.
    pub(crate) fn root(&self) -> &Node {
        &self.root
    }

    /// How many slots there are.
    pub(crate) fn len(&self) -> usize {
        self.paths.len()
    }

    /// The pointers, by slot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(|path| path.pointer.as_str())
    }
}

impl Slot {
    pub(crate) const fn index(self) -> usize {
        self.0
    }
}

impl Node {
    /// The node that `paths`, sorted and equal in their first `depth` tokens, share; its first slot is `first`.
    fn new(paths: &[Path], depth: usize, first: usize) -> Self {
        let mut slot = first;
        let mut children = Vec::new();
        for group in paths.chunk_by(|a, b| a.tokens.get(depth) == b.tokens.get(depth)) {
            if let Some(name) = group.first().and_then(|path| path.tokens.get(depth)) {
                children.push(Child {
                    name: name.clone(),
                    quoted: serde_json::Value::from(name.as_str()).to_string(),
                    index: array_index(name),
                    node: Self::new(group, depth.saturating_add(1), slot),
                });
            }
            slot = slot.saturating_add(group.len());
        }
        let needed = paths.first().is_some_and(|path| path.tokens.len() == depth);
        Self { slots: first..slot, needed, children }
    }

    /// The child of that name.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name).map(|child| &child.node)
    }

    /// Where the value of this very node goes, if it is asked for.
    pub(crate) fn slot(&self) -> Option<usize> {
        self.needed.then_some(self.slots.start)
    }
}

/// The reference tokens of a pointer, unescaped.
fn tokens(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~")).collect()
}

/// RFC 6901: digits without leading zeros.
fn array_index(token: &str) -> Option<usize> {
    let canonical = token == "0" || !token.starts_with(['0', '+']);
    if canonical { token.parse().ok() } else { None }
}
