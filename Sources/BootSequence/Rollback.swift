internal import HostSystem

/// Finds the release to go back to, by record and never by date.
struct Rollback {
    enum Impossible: Error, CustomStringConvertible {
        case nothingLive
        case noPrevious(live: String)
        case unknown(String, there: [String])
        case notProved(String)
        case alreadyLive(String)
        case foreign(String, of: String)
        case forbidden(String, path: String, word: String)

        var description: String {
            switch self {
            case .nothingLive: "no release is live"
            case .noPrevious(let live): "release \(live) has no proved release before it"
            case .unknown(let name, let there):
                "there is no release \(Printable.text(name, limit: 60))"
                    + (there.isEmpty ? "" : "; there are: " + there.joined(separator: ", "))
            case .notProved(let name): "release \(name) was never proved"
            case .alreadyLive(let name): "release \(name) is live already"
            case .foreign(let name, let owner): "release \(name) is of \(owner), and not this front's own"
            case .forbidden(let name, let path, let word):
                "\(path) of release \(name) mentions \(Printable.text(word, limit: 80)), which guard.never-mention forbids"
            }
        }
    }

    let store: ReleaseStore
    let environment: String
    /// Empty where no metadata says which instance this is.
    let instance: String
    let neverMention: [String]

    func target(named name: String?) throws -> ReleaseRecord {
        guard let live = try store.live() else { throw Impossible.nothingLive }
        let records = try store.records()
        let identifier: String
        if let name {
            identifier = name
        } else {
            guard let previous = records.first(where: { $0.identifier == live })?.previous else {
                throw Impossible.noPrevious(live: live)
            }
            identifier = previous
        }
        guard let record = records.first(where: { $0.identifier == identifier }) else {
            throw name == nil
                ? Impossible.noPrevious(live: live)
                : Impossible.unknown(identifier, there: records.filter { $0.state == .proved }.map(\.identifier))
        }
        if record.state != .proved { throw Impossible.notProved(identifier) }
        if identifier == live { throw Impossible.alreadyLive(identifier) }
        // What came with an image, or was made for another environment, is as foreign here as it is to a boot.
        if record.environment != environment {
            throw Impossible.foreign(identifier, of: "environment \(record.environment)")
        }
        if let owner = record.instance, owner != instance {
            throw Impossible.foreign(identifier, of: "instance \(owner)")
        }
        for entry in record.configuration + record.rendered where entry.kind == .file {
            let bytes = try store.bytes(of: entry, in: record)
            for word in neverMention where !bytes.ranges(of: Array(word.utf8)).isEmpty {
                throw Impossible.forbidden(identifier, path: entry.path, word: word)
            }
        }
        return record
    }
}
