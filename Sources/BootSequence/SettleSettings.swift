public import CloudPlatform
public import HostSystem

/// The settings of a run and the layers they were merged from.
public struct SettledSettings: Sendable {
    public let settings: Settings
    /// The merge of all layers, for `amorce settings`: every value with its origin.
    public let tree: SettingsTree
    /// What was read, lowest first.
    public let layers: [String]
}

/// Merges the layers, lowest first: built-in defaults, `/etc/amorce/amorce.yaml`, `/etc/amorce/conf.d/*.yaml` in byte order of
/// their names, user-data, the environment (`AMORCE_BACKUP_FROM` sets `backup.from`), flags (`--set backup.from=…`). A layer
/// may name others with `include:`; these lie right below it. This is the one place where precedence is decided.
public struct SettleSettings: Sendable {
    public struct Sources: Sendable {
        /// In place of `/etc/amorce/amorce.yaml` and `conf.d`.
        public var configFile: String?
        public var userData: [UserDataSettings] = []
        public var environment: [String: String] = [:]
        /// `backup.from=…`, as flags give them, in order.
        public var assignments: [String] = []

        public init() {}
    }

    private let layout: HostLayout
    /// Fetches what `include:` names; throws what is wrong in words.
    private let fetch: @Sendable (String) throws -> [UInt8]
    private static let includeDepth = 4

    public init(layout: HostLayout, fetch: @escaping @Sendable (String) throws -> [UInt8]) {
        self.layout = layout
        self.fetch = fetch
    }

    /// Throws `SettingsProblems` with everything that is wrong.
    public func settle(_ sources: Sources) throws -> SettledSettings {
        let problems = ProblemList()
        var layers = try layers(sources, problems)
        layers.insert(contentsOf: try shippedDefaults(for: layers, problems), at: 0)
        let tree = Self.merge(layers)
        let secrets = SecretResolver(layout: layout, environment: sources.environment)
        let settings = Settings.read(tree, secrets: secrets, problems: problems).settings
        if !problems.problems.isEmpty { throw SettingsProblems(problems: problems.problems) }
        var names: [String] = []
        for layer in layers where !names.contains(layer.origin.source) { names.append(layer.origin.source) }
        return SettledSettings(settings: settings, tree: tree, layers: names)
    }

    /// The sources to ask for metadata, before user-data can be known: files, environment and flags alone decide. Problems are
    /// left for `settle`, which meets them again.
    public func metadataSources(_ sources: Sources) -> [MetadataSource] {
        var early = sources
        early.userData = []
        let tree = Self.merge((try? layers(early, ProblemList(), followsIncludes: false)) ?? [])
        let secrets = SecretResolver(layout: layout, environment: sources.environment)
        return Settings.read(tree, secrets: secrets, problems: ProblemList()).settings.metadata
    }

    private static func merge(_ layers: [SettingsTree]) -> SettingsTree {
        layers.reduce(SettingsTree.empty) { $0.merged(with: $1) }
    }

    /// The values that the chosen template sets fall back to, below everything else.
    private func shippedDefaults(for layers: [SettingsTree], _ problems: ProblemList) throws -> [SettingsTree] {
        guard let node = Self.merge(layers)["templates"], case .list(let items) = node.content else { return [] }
        return items.compactMap { item in
            guard case .scalar(let name, _) = item.content, Settings.isName(name) else { return nil }
            do {
                let file = try TemplateTree(layout: layout).defaults(of: name)
                guard let bytes = try FileReading.bytesIfPresent(file, limit: SettingsText.sizeLimit) else {
                    return nil
                }
                let values = try SettingsText.parse(String(decoding: bytes, as: UTF8.self), source: file)
                return SettingsTree(
                    .map([.init(key: "values", origin: values.origin, value: values)]), origin: values.origin)
            } catch let found as SettingsProblems {
                for problem in found.problems { problems.add(problem.origin, problem.message) }
            } catch {
                problems.add(item.origin, "`templates`: \(error)")
            }
            return nil
        }
    }

    private func layers(
        _ sources: Sources, _ problems: ProblemList, followsIncludes: Bool = true
    ) throws -> [SettingsTree] {
        var layers: [SettingsTree] = []
        func add(_ text: String, _ source: String, firstLine: Int = 1) throws {
            do {
                let tree = try SettingsText.parse(text, source: source, firstLine: firstLine)
                if followsIncludes { layers += try included(by: tree, problems, depth: 0) }
                layers.append(tree)
            } catch let found as SettingsProblems {
                for problem in found.problems { problems.add(problem.origin, problem.message) }
            }
        }

        if let file = sources.configFile {
            try add(try FileReading.text(file, limit: SettingsText.sizeLimit), file)
        } else {
            if let bytes = try FileReading.bytesIfPresent(layout.settingsFile, limit: SettingsText.sizeLimit) {
                try add(String(decoding: bytes, as: UTF8.self), layout.settingsFile)
            }
            let names = try Files.names(in: layout.settingsFolder)
            for name in names where name.hasSuffix(".yaml") && !name.hasPrefix(".") {
                let path = layout.settingsFolder + "/" + name
                try add(try FileReading.text(path, limit: SettingsText.sizeLimit), path)
            }
        }
        for part in sources.userData { try add(part.text, part.origin, firstLine: part.firstLine) }
        layers += environmentLayers(sources.environment)
        layers += assignmentLayers(sources.assignments, problems)
        return layers
    }

    private func included(by tree: SettingsTree, _ problems: ProblemList, depth: Int) throws -> [SettingsTree] {
        guard let node = tree["include"], !node.isNull else { return [] }
        if depth == Self.includeDepth {
            problems.add(node.origin, "`include` goes deeper than \(Self.includeDepth) levels")
            return []
        }
        let items: [SettingsTree] = if case .list(let list) = node.content { list } else { [node] }
        var layers: [SettingsTree] = []
        for item in items {
            guard case .scalar(let location, _) = item.content else {
                problems.add(item.origin, "`include` must name s3://, https:// or file:// addresses")
                continue
            }
            do {
                let text = String(decoding: try fetch(location), as: UTF8.self)
                let tree = try SettingsText.parse(text, source: HTTPRequest.withoutQuery(location))
                layers += try included(by: tree, problems, depth: depth + 1) + [tree]
            } catch let found as SettingsProblems {
                for problem in found.problems { problems.add(problem.origin, problem.message) }
            } catch let stopped as StopReason {
                throw stopped
            } catch {
                problems.add(item.origin, "`include` \(HTTPRequest.withoutQuery(location)): \(error)")
            }
        }
        return layers
    }

    /// `AMORCE_BACKUP_NEWEST_WITHIN` -> `backup.newest-within`. Variables of that prefix that name no setting are left alone:
    /// others may be somebody else's.
    private func environmentLayers(_ environment: [String: String]) -> [SettingsTree] {
        Settings.scalarPaths.compactMap { path in
            let name = Self.variable(path)
            guard let value = environment[name] else { return nil }
            return .single(
                path.split(separator: ".").map(String.init), value, origin: SettingsOrigin("environment \(name)"))
        }
    }

    static func variable(_ path: String) -> String {
        "AMORCE_" + String(path.map { $0 == "." || $0 == "-" ? "_" : $0 }).uppercased()
    }

    private func assignmentLayers(_ assignments: [String], _ problems: ProblemList) -> [SettingsTree] {
        assignments.compactMap { assignment in
            let origin = SettingsOrigin("flag --set")
            guard let equals = assignment.firstIndex(of: "="), equals != assignment.startIndex else {
                problems.add(origin, "must be KEY=VALUE, such as backup.from=s3://bucket/prefix/")
                return nil
            }
            let path = assignment[..<equals].split(separator: ".", omittingEmptySubsequences: false).map(String.init)
            return .single(path, String(assignment[assignment.index(after: equals)...]), origin: origin)
        }
    }
}

extension SettingsTree {
    /// Every single value with its dotted path and origin, secrets hidden: the lines of `amorce settings`.
    public func listing() -> [(path: String, value: String, origin: SettingsOrigin)] {
        var lines: [(path: String, value: String, origin: SettingsOrigin)] = []
        func walk(_ tree: SettingsTree, _ path: String) {
            switch tree.content {
            case .scalar(let text, _):
                let isHidden = Self.isHidden(path) && !tree.isNull
                lines.append((path, isHidden ? "(secret)" : Self.shown(tree.isNull ? "null" : text), tree.origin))
            case .list(let items):
                let words = items.compactMap { item in
                    if case .scalar(let text, _) = item.content { Self.shown(text) } else { nil }
                }
                if words.count == items.count {
                    let isHidden = Self.isHidden(path) && !words.isEmpty
                    lines.append((path, isHidden ? "(secret)" : "[\(words.joined(separator: ", "))]", tree.origin))
                    return
                }
                for (index, item) in items.enumerated() { walk(item, "\(path)[\(index)]") }
            case .map(let entries):
                // A reference is not the secret: it is shown, and its content never is.
                if entries.count == 1, entries[0].key == "secret",
                    case .scalar(let text, _) = entries[0].value.content
                {
                    lines.append((path, "(secret from \(Self.shown(text)))", tree.origin))
                    return
                }
                if entries.isEmpty && !path.isEmpty { lines.append((path, "{}", tree.origin)) }
                for entry in entries { walk(entry.value, path.isEmpty ? entry.key : path + "." + entry.key) }
            }
        }
        walk(self, "")
        return lines
    }

    /// Only values are free names; of amorce's own settings one is a secret.
    private static func isHidden(_ path: String) -> Bool {
        path == "delta.password" || path.hasPrefix("values.") && SecretResolver.isSecretName(path)
    }

    /// An address may carry a password (`https://user:…@host/`) or a signature in its query.
    private static func shown(_ text: String) -> String {
        guard let scheme = text.firstRange(of: "://") else { return Printable.text(text) }
        var rest = text[scheme.upperBound...]
        if let query = rest.firstIndex(of: "?") { rest = rest[..<query] + "?(hidden)" }
        let authorityEnd = rest.firstIndex(of: "/") ?? rest.endIndex
        if let at = rest[..<authorityEnd].lastIndex(of: "@"), rest[..<at].contains(":") {
            rest = "(hidden)" + rest[at...]
        }
        return Printable.text(String(text[..<scheme.upperBound] + rest))
    }
}
