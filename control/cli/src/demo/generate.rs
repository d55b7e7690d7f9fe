//! Inputs that are made, not stored, and what they must give.

use std::fmt::Write as _;

/// A catalogue of so many items as JSON: the same bytes every time.
pub(crate) fn catalogue(count: u64) -> Vec<u8> {
    let mut text = String::from("{\"items\":[");
    for index in 0..count {
        let (stock, price) = item(index);
        let comma = if index == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{comma}{{\"id\":{index},\"name\":\"item number {index}\",\"tags\":[\"a{}\",\"b{}\"],\"stock\":{stock},\"price\":{price},\"note\":null}}",
            index % 17,
            index % 23,
        );
    }
    text.push_str("]}");
    text.into_bytes()
}

/// What the demo's filter says about it.
pub(crate) fn answer(count: u64) -> String {
    let chosen: Vec<u64> = (0..count).map(item).filter(|item| item.0 > 500).map(|item| item.1).collect();
    format!("{{\"count\":{},\"sum\":{}}}", chosen.len(), chosen.iter().sum::<u64>())
}

/// Stock and price: a linear congruence, so that they look random and are the same everywhere.
fn item(index: u64) -> (u64, u64) {
    let mixed = index.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (mixed >> 33 & 1_023, mixed >> 43 & 8_191)
}

/// The beginning of a text, for messages.
pub(crate) fn start(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_json_and_its_answer_right() {
        let value: serde_json::Value = serde_json::from_slice(&catalogue(500)).unwrap();
        let items = value["items"].as_array().unwrap();
        let prices = items.iter().filter(|item| item["stock"].as_u64() > Some(500));
        let prices: Vec<u64> = prices.filter_map(|item| item["price"].as_u64()).collect();
        let expected = serde_json::json!({ "count": prices.len(), "sum": prices.iter().sum::<u64>() });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&answer(500)).unwrap(), expected);
        assert!(prices.len() > 100 && items.len() == 500);
    }
}
