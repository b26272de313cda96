//! The README's table of errors is the catalogue's.

use muster_api::error::Reason;

#[test]
fn the_readme_lists_every_error_as_the_catalogue_has_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let readme = std::fs::read_to_string(path).expect("the README is there");
    let listed = readme
        .split_once("<!-- errors:begin -->\n")
        .and_then(|(_, rest)| rest.split_once("<!-- errors:end -->"))
        .map(|(table, _)| table)
        .expect("the README has the markers");
    let mut expected = "| reason | gRPC | HTTP | what to do |\n|---|---|---|---|\n".to_owned();
    for reason in Reason::ALL {
        let code = format!("{:?}", reason.code());
        let code = code
            .chars()
            .enumerate()
            .fold(String::new(), |mut code, (index, letter)| {
                if index > 0 && letter.is_uppercase() {
                    code.push('_');
                }
                code.push(letter.to_ascii_uppercase());
                code
            });
        let row = format!(
            "| `{}` | {code} | {} | {} |\n",
            reason.name(),
            reason.http_status(),
            reason.remedy()
        );
        expected.push_str(&row);
    }
    assert_eq!(
        listed, expected,
        "put this table between the markers:\n{expected}"
    );
}
