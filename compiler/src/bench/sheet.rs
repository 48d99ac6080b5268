//! Tables of the report, as text and as HTML.

use crate::output::table;
use crate::picture::html::escape;

/// A table.
pub(super) struct Sheet {
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
    /// Columns that are flush right.
    pub right: Vec<usize>,
}

impl Sheet {
    /// Columns aligned by spaces.
    pub fn text(self) -> String {
        let header: Vec<&str> = self.header.iter().map(String::as_str).collect();
        table(&header, self.rows, &self.right)
    }

    /// A table element.
    pub fn html(&self) -> String {
        let row = |tag: &str, cells: &[String]| {
            let cell = |(i, text): (usize, &String)| {
                let class = if self.right.contains(&i) { " class=\"n\"" } else { "" };
                format!("<{tag}{class}>{}</{tag}>", escape(text))
            };
            format!("<tr>{}</tr>\n", cells.iter().enumerate().map(cell).collect::<String>())
        };
        let rows: String = self.rows.iter().map(|r| row("td", r)).collect();
        // A wide table scrolls by itself.
        let head = row("th", &self.header);
        format!("<div class=\"wide\"><table>\n<thead>{head}</thead>\n<tbody>{rows}</tbody>\n</table></div>\n")
    }
}
