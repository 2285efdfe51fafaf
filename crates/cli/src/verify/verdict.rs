//! What was compared, and how it differs.

/// What was compared.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Verdict {
    /// Records in the source topic.
    pub(crate) records: u64,
    /// (key, window) pairs with a result.
    pub(crate) windows: u64,
    /// Dead letters.
    pub(crate) dead_letters: u64,
    /// Of these, those that came back and count in results.
    pub(crate) replayed: u64,
    /// Dead letters for lateness of records that their own partition had not left behind by more than the delay: only where
    /// the watermark passed a partition that was idle.
    pub(crate) overtaken: u64,
    /// Sessions of which a part had been over and forgotten when a late record joined it with another: each part is there.
    pub(crate) split: u64,
    /// Early results, which are compared with nothing.
    pub(crate) early: u64,
    /// Values that are not there of aggregates that were added to the job since: of windows that have earlier records.
    pub(crate) without: u64,
    /// What should be there and is not, or not in full.
    pub(crate) lost: u64,
    /// What is there more often than it should be.
    pub(crate) duplicated: u64,
    /// What differs in another way.
    pub(crate) wrong: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Difference {
    Lost,
    Duplicated,
    Wrong,
}

impl Difference {
    /// Of a number of records that should be `expected`.
    pub(super) fn of_count(got: Option<u64>, expected: u64) -> Self {
        match got {
            Some(got) if got < expected => Self::Lost,
            Some(got) if got > expected => Self::Duplicated,
            _ => Self::Wrong,
        }
    }
}

impl Verdict {
    /// All differences; the first few are printed.
    pub(crate) fn mismatches(&self) -> u64 {
        self.lost + self.duplicated + self.wrong
    }

    pub(super) fn differ(&mut self, difference: Difference, what: std::fmt::Arguments<'_>) {
        if self.mismatches() < 10 {
            eprintln!("mismatch ({difference:?}): {what}");
        }
        match difference {
            Difference::Lost => self.lost += 1,
            Difference::Duplicated => self.duplicated += 1,
            Difference::Wrong => self.wrong += 1,
        }
    }
}

/// The line that ends `tidegate dev --verify` and `tidegate verify`.
impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            records,
            windows,
            dead_letters,
            replayed,
            split,
            early,
            without,
            lost,
            duplicated,
            wrong,
            ..
        } = self;
        let mismatches = self.mismatches();
        write!(
            f,
            "verified: records={records} windows={windows} dead_letters={dead_letters} mismatches={mismatches}"
        )?;
        if *replayed > 0 {
            write!(f, " replayed={replayed}")?;
        }
        if *split > 0 {
            write!(f, " split={split}")?;
        }
        if *early > 0 {
            write!(f, " early={early}")?;
        }
        if *without > 0 {
            write!(f, " without={without}")?;
        }
        if mismatches > 0 {
            write!(f, " lost={lost} duplicated={duplicated} wrong={wrong}")?;
        }
        Ok(())
    }
}
