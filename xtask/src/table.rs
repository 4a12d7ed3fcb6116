//! Tables of text.

/// Rows in columns, aligned: the first column to the left, the others to the right. Valid Markdown.
pub(crate) fn render(head: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |row: &[String], column: usize| row.get(column).cloned().unwrap_or_default();
    let head: Vec<String> = head.iter().map(|&text| text.to_owned()).collect();
    let width = |column: usize| {
        rows.iter().chain([&head]).map(|row| cell(row, column).chars().count()).max().unwrap_or_default().max(3)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let show = |row: &[String]| {
        let cells = widths.iter().enumerate().map(|(column, &width)| match column {
            0 => format!("{:<width$}", cell(row, column)),
            _ => format!("{:>width$}", cell(row, column)),
        });
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let rules = widths.iter().enumerate().map(|(column, &width)| match column {
        0 => "-".repeat(width),
        _ => format!("{}:", "-".repeat(width - 1)),
    });
    let rule = format!("| {} |\n", rules.collect::<Vec<_>>().join(" | "));
    [show(&head), rule].into_iter().chain(rows.iter().map(|row| show(row))).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned()]];
        assert_eq!(
            super::render(&["x", "value"], &rows),
            "| x    | value |\n| ---- | ----: |\n| a    |     1 |\n| long |       |\n"
        );
    }
}
