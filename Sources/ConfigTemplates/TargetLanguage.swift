/// What a template renders to, which decides how values are quoted.
public enum TargetLanguage: String, Sendable, CaseIterable {
    case apache
    case php
    /// As php.ini is read.
    case ini
    /// As the pools of PHP-FPM are read.
    case fpm
    /// sh, and files of `NAME=value` that are read as sh reads them.
    case shell
    /// As Symfony's Dotenv reads it.
    case dotenv
    /// Option files of MySQL and MariaDB (`my.cnf`).
    case mysql
    case rsyslog
    case html
    case json
    /// No quoting: values without control characters pass as they are.
    case plain

    /// From the path of a template relative to its tree, with or without `.mustache`.
    public init(path: String) {
        var parts = path.split(separator: "/").map(String.init)
        var name = parts.popLast() ?? ""
        if name.hasSuffix(".mustache") { name.removeLast(".mustache".count) }
        func isBelow(_ folders: String...) -> Bool { parts.contains { folder in folders.contains { folder == $0 } } }

        switch name {
        case _ where name.hasSuffix(".php"): self = .php
        case "php-fpm.conf": self = .fpm
        case _ where name.hasSuffix(".conf") && isBelow("pool.d"): self = .fpm
        case _ where name.hasSuffix(".ini"): self = .ini
        case _ where name.hasPrefix(".env.") || name.hasSuffix(".env"): self = .dotenv
        case _ where name.hasSuffix(".sh"): self = .shell
        case "envvars" where isBelow("apache2"): self = .shell
        case _ where parts.suffix(2) == ["etc", "default"]: self = .shell
        case _ where name.hasSuffix(".cnf"): self = .mysql
        case ".htaccess": self = .apache
        case "rsyslog.conf": self = .rsyslog
        case _ where name.hasSuffix(".conf") && isBelow("rsyslog.d"): self = .rsyslog
        case _ where isBelow("apache2"): self = .apache
        case _ where name.hasSuffix(".conf") && isBelow("apache", "httpd"): self = .apache
        case _ where name.hasSuffix(".html") || name.hasSuffix(".htm"): self = .html
        case _ where name.hasSuffix(".json"): self = .json
        default: self = .plain
        }
    }
}
