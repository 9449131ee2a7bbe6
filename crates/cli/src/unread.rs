//! Fields of a checkpoint's configurations that nothing reads: named once, or refused.

use backstop_weights::Checkpoint;

/// Fields that a message names; it counts the others.
const NAMED_MAX: usize = 20;

/// Says which fields nothing reads. With `strict`, there must be none.
pub(crate) fn report(checkpoint: &Checkpoint, strict: bool) -> Result<(), String> {
    let of_config = backstop_arch::unread_fields(checkpoint.config());
    let of_config = of_config.map_err(|error| error.to_string())?;
    let of_generation = checkpoint.generation_config().unread_keys;
    let files = [
        ("config.json", of_config),
        ("generation_config.json", of_generation),
    ];
    let named: Vec<String> = files
        .iter()
        .filter(|(_, fields)| !fields.is_empty())
        .map(|(file, fields)| format!("{file}: {}", list(fields)))
        .collect();
    if named.is_empty() {
        return Ok(());
    }
    let named = named.join("; ");
    if strict {
        return Err(format!(
            "nothing reads these fields, and --strict-config is given: {named}"
        ));
    }
    tracing::warn!("nothing reads these fields of the model's files: {named}");
    Ok(())
}

fn list(fields: &[String]) -> String {
    let named = &fields[..fields.len().min(NAMED_MAX)];
    let mut text = named.join(", ");
    if fields.len() > named.len() {
        text += &format!(" and {} more", fields.len() - named.len());
    }
    text.chars().filter(|letter| !letter.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_counted() {
        let fields: Vec<String> = (0..22).map(|field| format!("a\n{field}")).collect();
        let text = list(&fields);
        assert!(text.ends_with("a19 and 2 more"), "{text}");
        assert_eq!(list(&fields[..2]), "a0, a1");
    }
}
