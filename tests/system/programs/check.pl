#!/usr/bin/perl
# SPDX-License-Identifier: GPL-2.0-or-later
# Work in Perl with one right result, as check.py is in Python: prints a name and a digest a line.
use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use Math::BigInt;
use Math::BigFloat;
use POSIX qw(floor fmod);

my $seed = 12345;

# The same numbers everywhere, whatever the C library's rand() is.
sub random_number {
    $seed = ($seed * 1103515245 + 12345) % 2147483648;
    return $seed >> 8;
}

sub report {
    my ($name, @values) = @_;
    print "$name ", substr(sha256_hex(join("\0", @values)), 0, 32), "\n";
}

my @words = map {
    join '', map { chr(97 + random_number() % 16) } 1 .. 1 + random_number() % 12
} 1 .. 60000;

report('sorting', (sort @words)[map { $_ * 50 } 0 .. 1000], (sort { length $a <=> length $b or $a cmp $b } @words)[0 .. 999]);

my %count;
$count{ substr($_, 0, 3) }++ for @words;
report('counting', map { "$_=$count{$_}" } sort keys %count);

my $text = join ' ', @words;
(my $changed = $text) =~ s/([aeio])(\w)\1/uc($1) . $2/ge;
my @found = $text =~ /\b(\w*ab+\w*)\b/g;
my $nested = '(' x 200 . 'x' . ')' x 200;
report('matching', $changed, @found, $nested =~ /^(\((?:[^()]|(?1))*\))$/ ? 'balanced' : 'not balanced',
    join(',', map { tr/a-e// } @words[0 .. 5000]), scalar reverse $text);

my $power = Math::BigInt->new(3)->bpow(3000);
my ($quotient, $rest) = $power->copy->bdiv(Math::BigInt->new(7)->bpow(500));
die 'division' unless $quotient->copy->bmul(Math::BigInt->new(7)->bpow(500))->badd($rest) == $power;
report('big numbers', $power, $quotient, $rest, Math::BigFloat->new(2)->bsqrt(120), Math::BigInt->new(400)->bfac);

my @floats;
for (1 .. 40000) {
    my ($x, $y) = (random_number() / 977, 1 + random_number() / 1.7);
    push @floats, sprintf '%.17g %.6e %d', $x * $y - $x / $y, sqrt($y) + fmod($x, $y), floor($x);
}
report('floating point', @floats);

my @packed = map { pack 'NnCwd<H*', $_ * 7919, $_ & 0xffff, $_ & 0xff, $_ * 31, $_ / 3, sprintf('%06x', $_) } 1 .. 20000;
report('packing', @packed, map { join ',', (unpack 'NnCwd<', $_)[0 .. 4] } @packed);

my @closures = map { my $n = $_; sub { return $_[0] ? $_[0] + $n : $n } } 1 .. 5000;
my $total = 0;
$total = $_->($total) % 1000003 for @closures;
report('closures', $total);

pipe my $reader, my $writer or die "pipe: $!";
for my $child (1 .. 8) {
    my $pid = fork // die "fork: $!";
    next if $pid;
    my $sum = 0;
    $sum = ($sum * 31 + $_ * $child) % 1000003 for 1 .. 50000;
    syswrite $writer, "$child $sum\n";
    exit 0;
}
close $writer;
report('processes', sort <$reader>);
1 while wait != -1;
