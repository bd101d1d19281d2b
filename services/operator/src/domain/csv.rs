//! A table of devices, with the columns `name` and where wanted `type`, `labels`, `attributes`.

use std::collections::BTreeMap;

use drover_types::ApiError;

/// One device of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub name: String,
    pub device_type: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub attributes: BTreeMap<String, String>,
}

/// The columns of a table, and where they are.
struct Columns {
    name: usize,
    device_type: Option<usize>,
    labels: Option<usize>,
    attributes: Option<usize>,
}

/// Reads a table of one to `rows_max` devices; the error names the line. An empty table is a mishap: it would delete all.
pub fn read(text: &str, rows_max: u64) -> Result<Vec<Row>, ApiError> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let columns = columns(reader.headers().map_err(|error| malformed(1, error.to_string()))?)?;
    let mut rows = Vec::new();
    for record in reader.records() {
        let line = |position: Option<&csv::Position>| position.map_or(0, csv::Position::line);
        let record = record.map_err(|error| malformed(line(error.position()), error.to_string()))?;
        let line = line(record.position());
        if rows.len() as u64 >= rows_max {
            return Err(ApiError::invalid("spec.source.csv", "too many devices").over(rows_max, format!("line {line}")));
        }
        rows.push(row(&record, &columns, line)?);
    }
    if rows.is_empty() {
        let message = "the table has no devices, and those registered stay; to delete them, delete the fleet";
        return Err(ApiError::invalid("spec.source.csv", message));
    }
    Ok(rows)
}

fn columns(header: &csv::StringRecord) -> Result<Columns, ApiError> {
    let place = |name: &str| header.iter().position(|column| column == name);
    let known = ["name", "type", "labels", "attributes"];
    if let Some(unknown) = header.iter().find(|column| !known.contains(column)) {
        return Err(malformed(1, format!("column {unknown:?} is not one of {}", known.join(", "))));
    }
    let name = place("name").ok_or_else(|| malformed(1, "there is no column name".to_owned()))?;
    let (device_type, labels, attributes) = (place("type"), place("labels"), place("attributes"));
    Ok(Columns { name, device_type, labels, attributes })
}

fn row(record: &csv::StringRecord, columns: &Columns, line: u64) -> Result<Row, ApiError> {
    let cell = |place: Option<usize>| place.and_then(|place| record.get(place)).unwrap_or_default();
    let name = cell(Some(columns.name));
    if name.is_empty() {
        return Err(malformed(line, "the name is empty".to_owned()));
    }
    Ok(Row {
        name: name.to_owned(),
        device_type: Some(cell(columns.device_type)).filter(|cell| !cell.is_empty()).map(str::to_owned),
        labels: pairs(cell(columns.labels), line)?,
        attributes: pairs(cell(columns.attributes), line)?,
    })
}

/// `k=v;k2=v2`.
fn pairs(cell: &str, line: u64) -> Result<BTreeMap<String, String>, ApiError> {
    let parts = cell.split(';').map(str::trim).filter(|part| !part.is_empty());
    let pair = |part: &str| match part.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
        None => Err(malformed(line, format!("{part:?} is not k=v"))),
    };
    parts.map(pair).collect()
}

fn malformed(line: u64, why: String) -> ApiError {
    ApiError::invalid("spec.source.csv", format!("line {line}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_with_its_labels_and_attributes() {
        let text = "name,type,labels,attributes\nd1, thermostat ,room=kitchen;floor=1,serial=A\n\"d,2\",,,\n";
        let rows = read(text, 2).expect("readable");
        assert_eq!((rows[0].name.as_str(), rows[0].device_type.as_deref()), ("d1", Some("thermostat")));
        assert_eq!((rows[0].labels["floor"].as_str(), rows[0].attributes["serial"].as_str()), ("1", "A"));
        assert_eq!(rows[1], Row { name: "d,2".into(), ..Row::default() });
        assert_eq!(read("name\nd1\n", 10).expect("one column").len(), 1);
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, told) in [
            ("type\nx\n", "line 1: there is no column name"),
            ("name,color\nx,y\n", "line 1: column \"color\""),
            ("name,labels\nd1,a=b\nd2,nonsense\n", "line 3: \"nonsense\" is not k=v"),
            ("name,type\n,x\n", "line 2: the name is empty"),
            ("name,type\nd1\n", "line 2"),
            ("name\n", "the table has no devices"),
        ] {
            let refused = read(text, 10).expect_err(told);
            assert!(refused.message.contains(told), "{refused:?}");
        }
        let refused = read("name\na\nb\nc\n", 2).expect_err("one too many");
        assert_eq!((refused.limit.as_deref(), refused.value.as_deref()), (Some("2"), Some("line 4")));
    }
}
