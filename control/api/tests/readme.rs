//! What the README tells people to type is what a gateway takes.

use novacron_control_api::{Call, Role, parse_request};

const README: &str = include_str!("../../../README.md");

#[test]
fn the_readmes_requests_are_taken() {
    let token = "ab".repeat(32);
    let mut roles = Vec::new();
    for line in README.lines().filter(|line| line.contains("\"jsonrpc\"")) {
        let (_, rest) = line.split_once("echo '").expect("an echo");
        let (request, _) = rest.rsplit_once("' |").expect("a pipe");
        let request = request.replace("'$TOKEN'", &token);
        let parsed = parse_request(request.as_bytes()).unwrap_or_else(|fault| panic!("{request}: {fault:?}"));
        let Call::SessionOpen(open) = parsed.call else { panic!("{request} opens no session") };
        roles.push(open.side.role());
    }
    assert_eq!(roles, [Role::Destination, Role::Source]);
}
