//! The known word that was probably meant by an unknown one.

/// Returns `; did you mean "x"?` with the known word that is nearest to `word`, or nothing.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let best = known.into_iter().map(|k| (strsim::damerau_levenshtein(word, k), k)).min();
    match best {
        Some((distance, known)) if distance <= 1 + known.len() / 3 => format!("; did you mean \"{known}\"?"),
        _ => String::new(),
    }
}
